//! `GET /events`: how the proxy stands, once a second, to whoever watches. Nothing is done where nobody does.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::audience::Audience;
use super::view::{Readiness, Upstream, Upstreams};
use crate::control::Control;
use crate::reload::Reload;
use crate::telemetry::clock::Clock;
use crate::telemetry::metrics::{Interval, Live};

/// Between two events.
const EVERY: Duration = Duration::from_secs(1);

/// The stream.
#[derive(Debug, Default)]
pub(super) struct Events {
    audience: Audience,
    running: Cell<bool>,
}

/// One event. Fields are only added.
#[derive(Debug, Serialize)]
struct Event {
    /// Since the Unix epoch, in seconds.
    time: f64,
    version: &'static str,
    /// The configuration's `service`, where it has one.
    service: Option<String>,
    workers: usize,
    #[serde(flatten)]
    readiness: Readiness,
    config: Config,
    /// What happened since the last event; since the proxy's start in the first one, which has `seconds: 0`.
    interval: Interval,
    /// As `/upstreams` shows them.
    upstreams: Vec<Upstream>,
}

#[derive(Debug, Serialize)]
struct Config {
    generation: u64,
    hash: String,
    source: String,
    /// The hash of an override that lies over the source; empty without one.
    #[serde(rename = "override")]
    overridden: String,
    last_reload_successful: bool,
    /// Until it is no longer on probation; `null` where it is not.
    probation_seconds_left: Option<f64>,
}

impl Events {
    /// One more listener; `None` where there are enough.
    pub(super) fn listen(
        self: &Rc<Self>,
        control: &Arc<Control>,
        reload: &Rc<Reload>,
    ) -> Option<mpsc::Receiver<Bytes>> {
        let receiver = self.audience.join()?;
        if !self.running.replace(true) {
            tokio::task::spawn_local(self.clone().tell(control.clone(), reload.clone()));
        }
        Some(receiver)
    }

    /// Until nobody listens.
    async fn tell(self: Rc<Self>, control: Arc<Control>, reload: Rc<Reload>) {
        let (mut live, clock) = (Live::default(), Clock::new());
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = None;
        while !self.audience.is_gone() {
            let now = ticks.tick().await;
            let elapsed = before.map_or(Duration::ZERO, |before| now - before);
            before = Some(now);
            let event = event(&control, &reload, &mut live, elapsed, &clock).await;
            self.audience.tell(&event);
        }
        self.running.set(false);
    }
}

async fn event(control: &Control, reload: &Reload, live: &mut Live, elapsed: Duration, clock: &Clock) -> String {
    let reports = control.reports().await;
    let Upstreams { generation, upstreams, .. } = Upstreams::by(control, &reports);
    let facts = reload.facts();
    let shards = reports.into_iter().map(|report| report.metrics).collect();
    let event = Event {
        time: clock.unix(Instant::now().into_std()).as_secs_f64(),
        version: env!("CARGO_PKG_VERSION"),
        service: reload.shown().in_force.config.service.clone(),
        workers: control.workers.len(),
        readiness: Readiness::of(control, reload, true),
        config: Config {
            generation,
            hash: facts.hash,
            source: facts.source,
            overridden: facts.overridden,
            last_reload_successful: facts.last_reload_successful,
            probation_seconds_left: reload.shown().probation_left.map(|left| left.as_secs_f64()),
        },
        interval: live.look(shards, control.exporter.names(), control.exporter.bounds(), elapsed),
        upstreams,
    };
    // Nothing here has a map with keys that are no strings, which is all that could fail.
    serde_json::to_string(&event).unwrap_or_default()
}
