//! Active health checks: whether an endpoint can be asked at all, found out without a request of a client's.
//!
//! Each endpoint of an upstream with `health` has a task of its own on the control thread, which asks, waits, and asks
//! again. What it finds goes into the endpoint's standing, and there it meets what else is known of the endpoint, by this
//! rule: **an endpoint gets requests where all agree.** A registry decides who is in the set; a check decides among those
//! in it; ejection decides among those that the check lets through, and gives way where too few are left. So a check that
//! passes brings nobody back whom the registry has taken out, nor ends an ejection; and a registry that says "passing"
//! does not overrule a check that fails from here.
//!
//! To add a probe: an arm of `config::model::Probe`, and its question in `probe`.

mod probe;
mod streak;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::probe::Question;
use self::streak::Streak;
use crate::config::model::HealthCheck;
use crate::identity::ClientTls;
use crate::snapshot::{Snapshot, Upstream};
use crate::transport::OwnAddresses;
use crate::upstream::state::{EndpointState, UpstreamState};

/// A check begins up to this share of `every` earlier or later, so that those of many endpoints, and of many proxies, do
/// not fall together.
const JITTER: f64 = 0.1;
/// The first check of an endpoint begins within this time, for the same reason.
const FIRST_WITHIN: Duration = Duration::from_millis(100);

/// How often it is looked whether other endpoints are to be checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Has endpoints checked, lets them come back from their ejections, and finds outliers among them, for as long as the
/// proxy runs.
pub(crate) async fn keep(snapshot: &ArcSwap<Snapshot>, own: Arc<OwnAddresses>) {
    let mut checks = Checks::new(own);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        let snapshot = snapshot.load();
        let found: Vec<Upstream> = snapshot.upstreams.iter().flat_map(Upstream::found).collect();
        let upstreams = || snapshot.upstreams.iter().chain(&found);
        checks.follow(upstreams());
        for upstream in upstreams() {
            upstream.endpoints.let_go();
            upstream.judge().tend(now.into());
        }
    }
}

/// The checks that run. Belongs to the control thread.
#[derive(Debug)]
struct Checks {
    own: Arc<OwnAddresses>,
    /// By the endpoint's id.
    running: HashMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    check: HealthCheck,
    tls: Option<Arc<ClientTls>>,
    upstream: Weak<UpstreamState>,
    endpoint: Weak<EndpointState>,
    task: JoinHandle<()>,
}

impl Checks {
    fn new(own: Arc<OwnAddresses>) -> Self {
        Checks { own, running: HashMap::new() }
    }

    /// Has exactly the endpoints checked that are to be checked now. What is no longer checked is up; a check that has
    /// changed begins anew.
    fn follow<'u>(&mut self, upstreams: impl Iterator<Item = &'u Upstream>) {
        let mut wanted = HashMap::new();
        for upstream in upstreams {
            let Some(check) = &upstream.health else { continue };
            for member in &upstream.endpoints.load().members {
                wanted.insert(member.state.id, (check, &upstream.tls, upstream.state.clone(), member.state.clone()));
            }
        }
        self.running.retain(|id, running| {
            let goes_on = wanted.get(id).is_some_and(|(check, tls, ..)| {
                **check == running.check && tls.as_ref().map(Arc::as_ptr) == running.tls.as_ref().map(Arc::as_ptr)
            });
            if !goes_on {
                running.task.abort();
                if let (Some(upstream), Some(endpoint)) = (running.upstream.upgrade(), running.endpoint.upgrade()) {
                    upstream.unchecked(&endpoint);
                }
            }
            goes_on
        });
        for (id, (check, tls, upstream, endpoint)) in wanted {
            self.running.entry(id).or_insert_with(|| {
                let (upstream, endpoint) = (Arc::downgrade(&upstream), Arc::downgrade(&endpoint));
                let question = Question { check: check.clone(), tls: tls.clone(), own: self.own.clone() };
                let task = tokio::task::spawn_local(watch(question, upstream.clone(), endpoint.clone()));
                Running { check: check.clone(), tls: tls.clone(), upstream, endpoint, task }
            });
        }
    }
}

/// Asks one endpoint for as long as somebody uses it.
async fn watch(question: Question, upstream: Weak<UpstreamState>, endpoint: Weak<EndpointState>) {
    let check = &question.check;
    let mut streak = Streak::new(check.initially_up);
    tokio::time::sleep(FIRST_WITHIN.min(check.every).mul_f64(fastrand::f64())).await;
    loop {
        let began = Instant::now();
        let (Some(upstream), Some(endpoint)) = (upstream.upgrade(), endpoint.upgrade()) else { return };
        let address = endpoint.address.clone();
        let result = {
            let Ok(_permit) = upstream.checking.acquire().await else { return };
            let asked = tokio::time::timeout(check.timeout, question.ask(&address)).await;
            asked.unwrap_or_else(|_| Some(Err(format!("no answer within {:?}", check.timeout))))
        };
        // What could not be asked says nothing.
        if let Some(result) = result {
            streak.check(result.is_ok(), check.up, check.down);
            upstream.checked(&endpoint, streak.is_up(), result.err(), Instant::now().into());
        }
        drop((upstream, endpoint));
        let pause = check.every.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0));
        tokio::time::sleep_until(began + pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::config::model::{EndpointAddress, Probe, UpstreamLimits};

    #[tokio::test]
    async fn an_upstream_whose_checks_hang_delays_nobody_elses() {
        /// More endpoints than checks that an upstream may have under way.
        const HANGING: u16 = 70;
        let test = async {
            let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let limits = UpstreamLimits { connections: 1, requests: 1, waiting: 1, retries: 1 };
            let upstream = |name| Arc::new(UpstreamState::new(name, limits));
            let watch = |upstream: &Arc<UpstreamState>, host: u16, probe| {
                let [high, low] = host.to_be_bytes();
                let address = EndpointAddress::Tcp(([127, 0, high, low], port).into());
                let endpoint = upstream.endpoint(&address, Instant::now().into()).unwrap();
                let (every, timeout) = (Duration::from_millis(10), Duration::from_secs(3_600));
                let check = HealthCheck { probe, port: None, every, timeout, up: 1, down: 1, initially_up: true };
                let question = Question { check, tls: None, own: Arc::default() };
                spawn_local(super::watch(question, Arc::downgrade(upstream), Arc::downgrade(&endpoint)));
                endpoint
            };
            let (silent, other) = (upstream("silent"), upstream("other"));
            let probe = Probe::Http("/".parse().unwrap());
            let _asked: Vec<_> = (1..=HANGING).map(|host| watch(&silent, host, probe.clone())).collect();
            let mut hanging = Vec::new();
            while silent.checking.available_permits() > 0 {
                hanging.push(listener.accept().await.unwrap());
            }
            let _asked = watch(&other, HANGING + 1, Probe::Tcp);
            while other.checks.0.load(Ordering::Relaxed) == 0 {
                hanging.push(listener.accept().await.unwrap());
            }
        };
        LocalSet::new().run_until(tokio::time::timeout(Duration::from_secs(60), test)).await.unwrap();
    }
}
