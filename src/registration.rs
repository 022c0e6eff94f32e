//! This proxy as a service in Consul: put in once it is ready, taken out before its listeners close.
//!
//! The local agent is told again and again that the service is well, or asked whether it still knows it; one that has
//! forgotten it is told anew.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::config::model::{Config, Direction, RegisterCheck};
use crate::consul::{Client, Registration, Settings, Watch};
use crate::control::Control;
use crate::runtime::address::BoundAddress;
use crate::runtime::complaints::Complaints;
use crate::runtime::drain::Phase;

/// Between two looks at whether the agent still knows a service whose check it makes itself.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An agent that does not take a service out within this time is left to find out by itself.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What is to be in the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    settings: Settings,
    registration: Registration,
}

impl Wanted {
    /// What the configuration wants; `bound` knows where each listener is really bound.
    ///
    /// # Errors
    /// A sentence, where the environment says something of Consul that cannot be used.
    pub(crate) fn new(config: &Config, bound: impl Fn(&str) -> Option<BoundAddress>) -> Result<Option<Self>, String> {
        let Some(register) = &config.register else { return Ok(None) };
        let settings = Settings::new(&config.consul, |name| std::env::var(name).ok())?;
        let inbound = config.listeners.iter().filter(|listener| listener.direction == Direction::Inbound);
        let mut inbound = inbound.filter_map(|listener| match bound(&listener.name) {
            Some(BoundAddress::Tcp(address)) => Some(address.port()),
            _ => None,
        });
        let port = register.port.or_else(|| inbound.next()).unwrap_or_default();
        let parts = [Some(register.name.clone()), register.address.clone(), Some(port.to_string())];
        let id = register.id.clone().unwrap_or_else(|| parts.into_iter().flatten().collect::<Vec<_>>().join("-"));
        let registration = Registration {
            id,
            name: register.name.clone(),
            address: register.address.clone(),
            port,
            tags: register.tags.clone(),
            meta: register.meta.clone(),
            check: register.check.clone(),
            deregister_after: register.deregister_after,
        };
        Ok(Some(Wanted { settings, registration }))
    }

    /// What tells it from others at its agent.
    pub(crate) fn id(&self) -> &str {
        &self.registration.id
    }
}

/// Keeps in the agent what is wanted, from the end of the start until a drain is announced, then takes it out, unless
/// another process keeps it there.
pub(crate) async fn keep(wanted: watch::Receiver<Option<Wanted>>, control: &Control) {
    let mut phase = control.phase.subscribe();
    let drain = async {
        let _ = phase.wait_for(|phase| *phase > Phase::Serving).await;
    };
    let there = RefCell::new(None);
    tokio::select! {
        () = drain => {}
        () = follow(wanted, &there, control) => {}
    }
    let elsewhere = control.registered_elsewhere.lock().unwrap_or_else(PoisonError::into_inner).take();
    let last = there.take().filter(|last| elsewhere.as_deref() != Some(&*last.registration.id));
    if let Some(last) = last {
        last.leave().await;
    }
    tell(control, None);
    control.registered.send_replace(false);
}

/// What is to be known of how it stands there.
fn tell(control: &Control, failure: Option<String>) {
    *control.registration_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
}

/// Follows what is wanted. `there` is what may stand in an agent: what was begun may have reached it, confirmed or not.
async fn follow(mut wanted: watch::Receiver<Option<Wanted>>, there: &RefCell<Option<Rc<Member>>>, control: &Control) {
    let mut discovered = control.discovered.subscribe();
    let _ = discovered.wait_for(|discovered| *discovered).await;
    loop {
        let next = wanted.borrow_and_update().clone().map(Member::new);
        let before = there.borrow().clone();
        // Under the same id, the agent puts the new one in its place.
        if let Some(before) = before.filter(|before| !next.as_ref().is_some_and(|next| next.replaces(before))) {
            before.leave().await;
        }
        there.replace(next.clone());
        tell(control, None);
        control.registered.send_replace(next.is_some());
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = async {
                match next {
                    Some(member) => member.stay(control).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// A service at its agent.
struct Member {
    settings: Settings,
    client: Rc<Client>,
    registration: Registration,
}

impl Member {
    fn new(wanted: Wanted) -> Rc<Self> {
        let Wanted { settings, registration } = wanted;
        Rc::new(Member { client: Client::new(settings.clone()), settings, registration })
    }

    fn replaces(&self, other: &Member) -> bool {
        self.registration.id == other.registration.id && self.settings == other.settings
    }

    /// Never ends by itself.
    async fn stay(&self, control: &Control) {
        let (mut pace, mut complaints) = (Watch::new(), Complaints::default());
        let id = &*self.registration.id;
        loop {
            pace.turn().await;
            match self.client.register(&self.registration).await {
                Ok(()) => {
                    pace.succeeded();
                    complaints.end();
                    tell(control, None);
                    tracing::info!(id, service = self.registration.name, "registered in Consul");
                    self.until_forgotten(control, &mut complaints).await;
                }
                Err(error) => {
                    pace.failed(&error);
                    let error = error.to_string();
                    if complaints.is_news(&error, Instant::now()) {
                        tracing::warn!(id, "cannot register in Consul: {error}");
                    }
                    tell(control, Some(error));
                }
            }
        }
    }

    /// Returns when the agent does not know the service any more.
    async fn until_forgotten(&self, control: &Control, complaints: &mut Complaints) {
        let id = &*self.registration.id;
        loop {
            let known = match self.registration.check {
                RegisterCheck::Ttl(ttl) => {
                    // Three times, so that one that is lost costs nothing.
                    sleep(ttl / 3).await;
                    // Where a worker is stuck, the silence tells.
                    if !control.stuck_workers().is_empty() {
                        continue;
                    }
                    match self.client.pass(&self.registration).await {
                        Err(error) if error.is_unknown_check() => Ok(false),
                        told => told.map(|()| true),
                    }
                }
                RegisterCheck::Http { .. } | RegisterCheck::Tcp { .. } => {
                    sleep(LOOK_EVERY).await;
                    self.client.knows(&self.registration.id).await
                }
            };
            match known {
                Ok(true) => {
                    complaints.end();
                    tell(control, None);
                }
                Ok(false) => {
                    tracing::warn!(id, "Consul has forgotten this service; it is registered again");
                    return;
                }
                Err(error) => {
                    let error = error.to_string();
                    if complaints.is_news(&error, Instant::now()) {
                        tracing::warn!(id, "Consul cannot be told that this service is well: {error}");
                    }
                    tell(control, Some(error));
                }
            }
        }
    }

    async fn leave(&self) {
        let id = &*self.registration.id;
        let left = timeout(LEAVE_WITHIN, self.client.deregister(id)).await;
        match left {
            Ok(Ok(())) => tracing::info!(id, "deregistered from Consul"),
            Ok(Err(error)) => tracing::warn!(id, "cannot deregister from Consul: {error}"),
            Err(_) => tracing::warn!(id, "cannot deregister from Consul: its agent did not answer within 2 s"),
        }
    }
}
