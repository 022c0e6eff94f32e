//! What one worker thread does.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::sync::mpsc;

use crate::control::{Command, Heartbeat, Report};
use crate::listener::entrance::Entrance;
use crate::listener::{Door, LayerFn, Loads, StreamIn, listen, take_over};
use crate::proxy::via::Pseudonym;
use crate::proxy::worker::Worker;
use crate::runtime::memory;
use crate::snapshot::Snapshot;
use crate::telemetry::WorkerEnds;
use crate::telemetry::metrics::{Bounds, Shard};
use crate::transport::{OwnAddresses, Pools};

/// How often a worker tidies up: log lines go out, its heart beats, and of its idle connections a part is looked through:
/// all of them once a second.
const TICK: Duration = Duration::from_millis(250);
/// How often it gives back what has been freed.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);

/// What one worker thread begins with.
pub(super) struct Duty {
    pub(super) index: usize,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// Of its histograms.
    pub(super) bounds: Bounds,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) peers: Vec<mpsc::UnboundedSender<Command>>,
    pub(super) loads: Loads,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) own: Arc<OwnAddresses>,
    pub(super) telemetry: WorkerEnds,
    pub(super) layers: Option<LayerFn>,
}

impl Duty {
    /// Follows the commands until the last.
    pub(super) async fn run(mut self) {
        let Ok(via) = Pseudonym::new("outrigger") else { return };
        let pools = Pools::new(self.own);
        let worker = Worker::new(self.snapshot, pools, Shard::new(self.index, self.bounds), self.telemetry, via);
        let hand_over: Rc<dyn Fn(usize, StreamIn)> = {
            let peers = self.peers;
            Rc::new(move |peer, stream| {
                let _ = peers[peer].send(Command::Serve(stream));
            })
        };
        let open = |entrance: Arc<Entrance>, socket: Socket, snapshot: Arc<Snapshot>| {
            let Some(entry) = entrance.on(&worker, Some(snapshot)) else { return };
            let door = Door {
                worker: worker.clone(),
                index: self.index,
                loads: self.loads.clone(),
                entrance,
                entry,
                layers: self.layers.clone(),
                hand_over: hand_over.clone(),
            };
            tokio::task::spawn_local(async move {
                if let Err(error) = listen(socket, door).await {
                    tracing::error!(%error, "a listener has failed");
                }
            });
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gave_back = tokio::time::Instant::now();
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Serve(stream)) => take_over(stream, &worker, self.layers.as_ref()),
                    Some(Command::Report(answer)) => {
                        let _ = answer.send(report(&worker));
                    }
                    Some(Command::Open { entrance, socket, snapshot }) => open(entrance, socket, snapshot),
                    Some(Command::Cut { routes, generation }) => worker.cut(&routes, generation),
                    Some(Command::Log(log)) => {
                        worker.access_log.replace(log);
                    }
                    Some(Command::Stop) | None => break,
                },
                now = ticks.tick() => {
                    self.heartbeat.beat();
                    worker.access_log.borrow().flush();
                    worker.tracer.flush();
                    worker.refresh();
                    worker.pools.yield_wanted();
                    worker.pools.sweep(now);
                    if now.duration_since(gave_back) >= GIVE_BACK_EVERY {
                        gave_back = now;
                        memory::give_back();
                    }
                }
            }
        }
        worker.access_log.borrow().flush();
        worker.tracer.flush();
    }
}

fn report(worker: &Worker) -> Report {
    Report { metrics: worker.metrics.snapshot(), in_flight: worker.in_flight(), pools: worker.pools.counts() }
}
