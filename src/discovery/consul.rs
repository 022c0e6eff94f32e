//! Instances of a service in Consul.
//!
//! Each datacenter is followed by itself, by blocking queries. The first in written order that has a usable instance is
//! used; one that cannot be asked stays what it was last.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Sink, Source};
use crate::config::model::{Consul, ConsulSource, ConsulTarget, Passing, UpstreamProtocol};
use crate::consul::{Client, Error, Instance, Instances, Settings, Status, Watch};
use crate::upstream::endpoints::Discovered;

/// Between two executions of a prepared query, which Consul cannot hold back until something changes.
const POLL_EVERY: Duration = Duration::from_secs(5);

/// Whether agents can be reached as this and the environment say.
///
/// # Errors
/// A sentence, where the environment says something of Consul that cannot be used.
pub(super) fn check(agents: &Consul) -> Result<(), String> {
    Settings::new(agents, |name| std::env::var(name).ok()).map(|_| ())
}

/// A service in Consul.
pub(super) struct Service {
    source: ConsulSource,
    client: Rc<Client>,
}

impl Service {
    /// # Errors
    /// A sentence, where the environment says something of Consul that cannot be used.
    pub(super) fn new(source: &ConsulSource) -> Result<Self, String> {
        let settings = Settings::new(&source.agents, |name| std::env::var(name).ok())?;
        Ok(Service { source: source.clone(), client: Client::new(settings) })
    }
}

impl Source for Service {
    async fn run(self, sink: Sink) {
        let datacenters = match self.source.datacenters.as_slice() {
            [] => vec![None],
            written => written.iter().cloned().map(Some).collect(),
        };
        let views = RefCell::new(Views::new(datacenters.len()));
        let shared = Rc::new((self, views, sink));
        let mut watches = JoinSet::new();
        for (position, datacenter) in datacenters.into_iter().enumerate() {
            let shared = shared.clone();
            watches.spawn_local(async move {
                let (service, views, sink) = &*shared;
                service.follow(position, datacenter.as_deref(), views, sink).await;
            });
        }
        while watches.join_next().await.is_some() {}
    }
}

impl Service {
    async fn follow(&self, position: usize, datacenter: Option<&str>, views: &RefCell<Views>, sink: &Sink) {
        let (mut watch, mut instances) = (Watch::new(), Instances::default());
        loop {
            let index = watch.turn().await;
            match self.client.instances(&self.source, datacenter, index, &mut instances).await {
                Ok(answer) => {
                    if watch.answered(&answer) {
                        tracing::warn!(datacenter, "Consul's index went backwards: it was restored or replaced");
                        sink.reset();
                    }
                    let known = View::Known(self.usable(instances.list()));
                    views.borrow_mut().answered(position, known);
                    self.publish(views, sink);
                    if matches!(self.source.target, ConsulTarget::PreparedQuery(_)) {
                        tokio::time::sleep(POLL_EVERY).await;
                    }
                }
                Err(error) => {
                    watch.failed(&error);
                    self.failed(position, datacenter, &error, views, sink);
                }
            }
        }
    }

    fn failed(&self, position: usize, datacenter: Option<&str>, error: &Error, views: &RefCell<Views>, sink: &Sink) {
        let error = match datacenter {
            Some(datacenter) => format!("datacenter {datacenter}: {error}"),
            None => error.to_string(),
        };
        let first = views.borrow_mut().could_not_be_asked(position, &error);
        // Whoever comes after it in order may have waited for its answer.
        if first && views.borrow().chosen().is_some_and(|chosen| !chosen.is_empty()) {
            self.publish(views, sink);
        }
        if views.borrow().used.is_none_or(|used| used == position) {
            sink.failed(&error);
        } else {
            sink.failed_elsewhere(&error);
        }
    }

    fn publish(&self, views: &RefCell<Views>, sink: &Sink) {
        let mut views = views.borrow_mut();
        let Some(chosen) = views.chosen().map(<[_]>::to_vec) else { return };
        if !chosen.is_empty() {
            views.used = views.each.iter().position(View::has_any);
        }
        // All is well once everybody answers, and not with the answer of one.
        let failing = views.failing.iter().flatten().next().cloned();
        drop(views);
        match failing {
            Some(error) => sink.publish_while_failing(chosen, &self.nobody(), &error),
            None if chosen.is_empty() => sink.publish_none(&self.nobody()),
            None => sink.publish(chosen),
        }
    }

    /// Why there is nobody, as far as Consul tells.
    fn nobody(&self) -> String {
        let checks = match self.source.passing {
            Passing::Only => "that passes its checks",
            Passing::Warning => "whose checks pass or warn",
        };
        match &self.source.target {
            ConsulTarget::Service(name) => format!("Consul knows no instance of `{name}` {checks}"),
            ConsulTarget::PreparedQuery(name) => format!("the prepared query `{name}` finds no instance {checks}"),
        }
    }

    /// Those that can be called, the weightiest first where an address is there twice.
    fn usable(&self, instances: &[Instance]) -> Vec<Discovered> {
        let usable = instances.iter().filter_map(|instance| {
            let weight = match (instance.status, self.source.passing) {
                (Status::Passing, _) => instance.weight_passing,
                (Status::Warning, Passing::Warning) => instance.weight_warning,
                (Status::Warning | Status::Critical, _) => return None,
            };
            Some(Discovered {
                address: instance.address.clone(),
                weight: u32::from(weight),
                priority: 0,
                zone: instance.zone.clone(),
                protocol: instance.protocol.as_deref().and_then(protocol_named),
            })
        });
        let mut usable: Vec<Discovered> = usable.collect();
        // Consul's order means something only where it was asked to sort; else the same set has the same order.
        if self.source.near.is_none() {
            usable.sort_by(|a, b| (&a.address, Reverse(a.weight)).cmp(&(&b.address, Reverse(b.weight))));
        }
        usable
    }
}

/// What an instance's `protocol` says; words that Consul knows for other things say nothing here.
fn protocol_named(protocol: &str) -> Option<UpstreamProtocol> {
    match protocol {
        "http2" | "h2c" | "grpc" => Some(UpstreamProtocol::Http2),
        "http1" => Some(UpstreamProtocol::Http1),
        _ => None,
    }
}

/// What is known of each datacenter, in written order.
#[derive(Debug)]
struct Views {
    each: Vec<View>,
    /// Why each cannot be asked just now.
    failing: Vec<Option<String>>,
    /// The one whose instances were published last.
    used: Option<usize>,
}

#[derive(Debug)]
enum View {
    /// Its first answer is still to come.
    Unasked,
    /// It has never answered.
    Unknown,
    /// Its usable instances as it named them last.
    Known(Vec<Discovered>),
}

impl View {
    fn has_any(&self) -> bool {
        matches!(self, View::Known(usable) if !usable.is_empty())
    }
}

impl Views {
    fn new(datacenters: usize) -> Self {
        let each = std::iter::repeat_with(|| View::Unasked).take(datacenters).collect();
        Views { each, failing: vec![None; datacenters], used: None }
    }

    /// The endpoints to use, or `None` where that cannot be said yet.
    fn chosen(&self) -> Option<&[Discovered]> {
        let mut all_known = true;
        for view in &self.each {
            match view {
                View::Unasked => return None,
                View::Unknown => all_known = false,
                View::Known(usable) if usable.is_empty() => {}
                View::Known(usable) => return Some(usable),
            }
        }
        // That there is nobody can be said only where everybody was asked.
        all_known.then_some(&[])
    }

    fn answered(&mut self, position: usize, known: View) {
        self.each[position] = known;
        self.failing[position] = None;
    }

    /// True where nothing was known of it before.
    fn could_not_be_asked(&mut self, position: usize, error: &str) -> bool {
        self.failing[position] = Some(error.to_owned());
        let unasked = matches!(self.each[position], View::Unasked);
        if unasked {
            self.each[position] = View::Unknown;
        }
        unasked
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::model::{EndpointAddress, OnEmpty};
    use crate::config::{Document, LoadOptions, load};
    use crate::upstream::registry::Registry;

    fn endpoint(port: u16) -> Discovered {
        let address = EndpointAddress::Tcp(([127, 0, 0, 1], port).into());
        Discovered { address, weight: 1, priority: 0, zone: None, protocol: None }
    }

    #[test]
    fn datacenters_are_turned_to_in_written_order() {
        let known = |ports: &[u16]| View::Known(ports.iter().map(|port| endpoint(*port)).collect());
        let chosen = |views: Vec<View>| {
            Views { failing: vec![None; views.len()], each: views, used: None }
                .chosen()
                .map(|chosen| chosen.iter().map(|endpoint| endpoint.address.to_string()).collect())
        };
        let first: Option<Vec<String>> = Some(vec!["127.0.0.1:1".to_owned()]);
        let second = Some(vec!["127.0.0.1:2".to_owned()]);
        assert_eq!(chosen(vec![known(&[1]), known(&[2])]), first);
        assert_eq!(chosen(vec![known(&[1]), View::Unasked]), first);
        assert_eq!(chosen(vec![View::Unasked, known(&[2])]), None, "the first may answer yet");
        assert_eq!(chosen(vec![View::Unknown, known(&[2])]), second);
        assert_eq!(chosen(vec![known(&[]), known(&[2])]), second);
        assert_eq!(chosen(vec![known(&[]), known(&[])]), Some(vec![]));
        assert_eq!(chosen(vec![known(&[]), View::Unknown]), None, "who was not asked may have somebody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_datacenter_that_fails_does_not_stop_the_clock_of_another() {
        let unreachable = || Error::Unreachable { agent: "agent".to_owned(), cause: "none".to_owned() };
        let left_after = |failing: usize| async move {
            let text = "listeners: { in: { address: 127.0.0.1:1, upstream: \"consul://web\" } }";
            let document = Document { name: "test", bytes: text.as_bytes() };
            let mut upstream =
                load(document, &|_: &str| None, &LoadOptions::default()).unwrap().config.upstreams.remove(0);
            upstream.on_empty = OnEmpty::Keep(Duration::from_secs(30));
            let (_state, endpoints) = Registry::new(mpsc::unbounded_channel().0).upstream(&upstream);
            let source = ConsulSource::service(Consul::default(), "web".to_owned());
            let settings = Settings::new(&source.agents, |_| None).unwrap();
            let (service, sink) =
                (Service { source, client: Client::new(settings) }, Sink::new(&endpoints, true, true));
            let views = RefCell::new(Views::new(2));
            views.borrow_mut().each = vec![View::Known(vec![endpoint(1)]), View::Known(Vec::new())];
            service.publish(&views, &sink);
            views.borrow_mut().each[0] = View::Known(Vec::new());
            service.publish(&views, &sink);
            assert_eq!(endpoints.load().members.len(), 1);
            service.failed(failing, Some("dc"), &unreachable(), &views, &sink);
            tokio::time::sleep(Duration::from_secs(31)).await;
            endpoints.load().members.len()
        };
        let test = async { (left_after(0).await, left_after(1).await) };
        assert_eq!(tokio::task::LocalSet::new().run_until(test).await, (1, 0));
    }

    #[test]
    fn own_judgement_of_checks_and_weights() {
        let instance = |port: u16, status, weight_passing, weight_warning, protocol: &str| Instance {
            address: EndpointAddress::Tcp(([127, 0, 0, 1], port).into()),
            status,
            weight_passing,
            weight_warning,
            zone: Some("a".into()),
            protocol: Some(protocol.into()),
        };
        let instances = || {
            vec![
                instance(4, Status::Critical, 9, 9, "http"),
                instance(3, Status::Warning, 9, 2, "http"),
                instance(2, Status::Passing, 1, 1, "http2"),
                instance(1, Status::Passing, 5, 1, "http"),
                instance(2, Status::Passing, 7, 1, "http2"),
            ]
        };
        let usable = |passing, near: Option<&str>| {
            let source = ConsulSource::service(Consul::default(), "a".to_owned());
            let source = ConsulSource { near: near.map(str::to_owned), passing, ..source };
            let settings = Settings::new(&source.agents, |_| None).unwrap();
            let service = Service { source, client: Client::new(settings) };
            let usable = service.usable(&instances());
            usable.iter().map(|endpoint| (endpoint.address.to_string(), endpoint.weight)).collect::<Vec<_>>()
        };
        let named = |named: &[(u16, u32)]| {
            named.iter().map(|(port, weight)| (format!("127.0.0.1:{port}"), *weight)).collect::<Vec<_>>()
        };
        assert_eq!(usable(Passing::Only, None), named(&[(1, 5), (2, 7), (2, 1)]));
        assert_eq!(usable(Passing::Warning, None), named(&[(1, 5), (2, 7), (2, 1), (3, 2)]));
        assert_eq!(usable(Passing::Only, Some("_agent")), named(&[(2, 1), (1, 5), (2, 7)]));
        assert_eq!(protocol_named("grpc"), Some(UpstreamProtocol::Http2));
        assert_eq!(protocol_named("tcp"), None);
    }
}
