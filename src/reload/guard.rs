//! Watches what was put in force last, and goes back by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::probation::{Before, Probation, Verdict};
use super::swap::Stage;
use super::{Reload, history};
use crate::config::model::Probation as Policy;
use crate::runtime::drain::Phase;
use crate::telemetry::metrics::{Tallies, Tally, Tallying};

/// Between two looks while nothing is on probation and nothing could be.
const IDLE: Duration = Duration::from_secs(1);

/// What it remembers. Of a configuration without `probation`, nothing.
#[derive(Debug, Default)]
pub(super) struct Guard {
    tallying: RefCell<Tallying>,
    before: RefCell<Before>,
    watch: RefCell<Option<Probation>>,
    passed: Cell<u64>,
    failed: Cell<u64>,
    superseded: Cell<u64>,
}

impl Guard {
    /// A probation that would begin now: what is counted just before the swap is what it begins from.
    pub(super) async fn prepare(&self, policy: Policy, stage: &Stage) -> Probation {
        let counts = self.count(stage).await;
        let now = Instant::now();
        match &*self.watch.borrow() {
            Some(unproven) => unproven.next(policy, now, counts),
            None => {
                let window = self.before.borrow().window(&counts);
                Probation::new(policy, now, counts, &window)
            }
        }
    }

    /// Another configuration is in force. True where the one before was still watched.
    pub(super) fn begin(&self, watch: Option<Probation>) -> bool {
        let cut_short = self.watch.replace(watch).is_some();
        if cut_short {
            self.superseded.set(self.superseded.get() + 1);
        }
        cut_short
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watch.borrow().is_some()
    }

    /// Until what is in force is no longer watched.
    pub(super) fn left(&self) -> Option<Duration> {
        self.watch.borrow().as_ref().map(|watch| watch.left(Instant::now()))
    }

    /// How often it came to what.
    pub(super) fn counts(&self) -> [(&'static str, u64); 3] {
        [
            (history::PASSED, self.passed.get()),
            (history::FAILED, self.failed.get()),
            (history::SUPERSEDED, self.superseded.get()),
        ]
    }

    async fn count(&self, stage: &Stage) -> Tallies {
        let shards = stage.shards().await;
        self.tallying.borrow_mut().look(shards)
    }
}

impl Reload {
    /// Watches for as long as the proxy runs.
    pub(crate) async fn watch_over(self: &Rc<Self>) {
        loop {
            let policy = self.state.borrow().in_force.config.probation;
            tokio::time::sleep(policy.map_or(IDLE, |policy| Before::pace(&policy).min(IDLE))).await;
            let watching = self.guard.is_watching();
            let Some(policy) = policy.filter(|_| self.stage.phase() == Phase::Serving) else {
                self.guard.before.take();
                continue;
            };
            let generation = self.stage.generation();
            let (now, counts) = (Instant::now(), self.guard.count(&self.stage).await);
            if self.stage.generation() != generation {
                continue;
            }
            self.guard.before.borrow_mut().look(&policy, now, counts.clone());
            let verdict =
                self.guard.watch.borrow().as_ref().map(|watch| (watch.judge(now, &counts), watch.lasted(now)));
            match verdict.filter(|_| watching) {
                None | Some((Verdict::Open, _)) => {}
                Some((Verdict::Passed, _)) => {
                    self.guard.watch.take();
                    self.guard.passed.set(self.guard.passed.get() + 1);
                    self.state.borrow_mut().history.set_probation(generation, history::PASSED);
                    tracing::info!(generation, "the configuration has passed its probation");
                }
                Some((Verdict::Failed(tally), lasted)) => self.reject(generation, tally, lasted).await,
            }
        }
    }

    /// Goes back from this generation, if it is still in force.
    async fn reject(self: &Rc<Self>, generation: u64, Tally { requests, failed }: Tally, lasted: Duration) {
        let _turn = self.turn.lock().await;
        if self.stage.generation() != generation || self.guard.watch.take().is_none() {
            return;
        }
        self.guard.failed.set(self.guard.failed.get() + 1);
        self.state.borrow_mut().history.set_probation(generation, history::FAILED);
        let why = format!(
            "generation {generation} has failed its probation: {failed} of {requests} requests failed within {} s",
            lasted.as_secs().max(1)
        );
        tracing::error!(generation, requests, failed, "{why}");
        let outcome = self
            .go_back("probation", |history, rejected| history.proven(rejected).ok_or_else(|| history.nothing_left()))
            .await;
        let told = match outcome {
            Ok(adopted) => format!("{why}; generation {} has its place", adopted.generation),
            Err(error) => format!("{why}, and cannot be gone back from: {error}"),
        };
        self.state.borrow_mut().gone_back = Some(told);
        // What failed under it is no excuse for the next.
        let counts = self.guard.count(&self.stage).await;
        self.guard.before.borrow_mut().restart(Instant::now(), counts);
    }
}
