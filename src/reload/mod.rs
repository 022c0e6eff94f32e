//! The configuration in force, and how another takes its place while requests pass.
//!
//! There is one source of truth. Over it may lie one override: what somebody put there by hand, or a rollback. While it
//! lies there, what the source says is read and checked and waits. Everything ends in [`Reload::adopt`], which is all or
//! nothing: whatever is wrong leaves what is in force as it was.
//!
//! | file | knows |
//! | --- | --- |
//! | `document` | how bytes become a configuration, and which variables those from the network may use |
//! | `swap` | how a configuration becomes the one that the workers serve: bind, compile, publish, drain |
//! | `removed` | which routes a swap has removed, so that their streams end in time |
//! | `outcome` | how an attempt to change the configuration ends |
//! | `override_` | what lies over the source, and until when |
//! | `again` | when what was refused is tried again |
//! | `history` | the last generations |
//! | `guard` | how what was put in force last does, and when to go back by itself |
//! | `probation` | when that is: the rules alone |
//! | `shown` | what people see of all this |
//! | `source` | where the truth is: a file, a key in Consul, or nothing that changes |
//! | `kv` | how that key is read and followed |
//! | `last_good` | the file that the last accepted one is kept in |
//!
//! Everything here runs on the control thread. Reading and compiling are done beside it.

mod again;
pub(crate) mod document;
mod guard;
pub(crate) mod history;
pub(crate) mod kv;
mod last_good;
mod outcome;
mod override_;
mod probation;
mod removed;
mod shown;
pub(crate) mod source;
pub(crate) mod swap;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{MutexGuard, mpsc};

use crate::config::ContentHash;
use crate::config::diff::{Diff, diff, held, process_alone};
use crate::runtime::drain::Phase;
use crate::telemetry::clock;
use crate::upstream::registry::Found;
use document::{Accepted, Reading, Trust, Wording};
use guard::Guard;
use history::{Earlier, Generation, History};
use last_good::LastGood;
pub(crate) use outcome::{Adopted, Refusal};
use override_::{Kind, Override};
use swap::Stage;

/// What is in force, what lies over what, and what has been.
pub(crate) struct Reload {
    stage: Stage,
    reading: Reading,
    /// The source of truth, for people.
    source: String,
    /// Who wrote what the source holds.
    trust: Trust,
    last_good: Option<LastGood>,
    state: RefCell<State>,
    /// What of the process it began with, in its long form.
    started_with: Arc<str>,
    guard: Guard,
    /// One swap at a time.
    turn: tokio::sync::Mutex<()>,
    /// Another process is about to take this one's place.
    held: Cell<bool>,
    overrides: Cell<u64>,
    /// How often the source has said something else, or nothing.
    said: Cell<u64>,
}

struct State {
    in_force: Arc<Accepted>,
    /// What the source holds, of what could be accepted.
    truth: Wording,
    /// What the truth is instead, where a start has found the source wrong.
    stand_in: Option<String>,
    /// Of what the source holds, accepted or not; `None` where it cannot be read.
    seen: Option<ContentHash>,
    over: Option<Override>,
    /// Why what the source holds is not in force. Nobody but the source mends that.
    failure: Option<Failure>,
    /// Why what somebody last wanted is not in force, as long as nothing else has been put there since.
    refusal: Option<Failure>,
    history: History,
    /// What is written otherwise than it was at the start, and is read only then.
    held: Vec<String>,
    /// Why the proxy went back by itself, where nothing was put in force since.
    gone_back: Option<String>,
    accepted: u64,
    refused: u64,
}

/// Something that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// Where it came from.
    pub(crate) source: String,
    pub(crate) at: SystemTime,
    pub(crate) error: String,
}

/// What `PUT /config` can ask for beside the document.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// Say what would happen, and do nothing.
    pub(crate) dry_run: bool,
    /// The override ends by itself after this.
    pub(crate) lasts: Option<Duration>,
    /// Only where this generation is in force.
    pub(crate) instead_of: Option<u64>,
}

/// What a proxy begins with.
pub(crate) struct Beginning {
    pub(crate) source: String,
    pub(crate) trust: Trust,
    pub(crate) accepted: Accepted,
    /// Where this is the last good one, and not what the source holds.
    pub(crate) stands_in: Option<StandIn>,
    pub(crate) last_good: Option<PathBuf>,
    pub(crate) reading: Reading,
}

/// The last good configuration, in the place of what the source holds.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) path: PathBuf,
    /// Of what the source holds; `None` where that cannot be read, or may do another time, and is looked at anew.
    pub(crate) refused: Option<ContentHash>,
    pub(crate) error: String,
}

impl Reload {
    pub(crate) fn new(stage: Stage, beginning: Beginning) -> Rc<Self> {
        let Beginning { source, trust, accepted, stands_in, last_good, reading } = beginning;
        let accepted = Arc::new(accepted);
        let (seen, failure, stand_in) = match stands_in {
            None => (Some(accepted.hash()), None, None),
            Some(StandIn { path, refused, error }) => {
                let path = path.display().to_string();
                tracing::warn!(path, source, "started with the last good configuration, for the source has none");
                let failure = Failure { source: source.clone(), at: clock::now(), error };
                (refused, Some(failure), Some(format!("last-good {path}")))
            }
        };
        let started_with = process_alone(&accepted.effective).into();
        let mut history = History::default();
        let origin = stand_in.clone().unwrap_or_else(|| source.clone());
        history.add(Generation::first(stage.generation(), origin, accepted.wording.clone()));
        let state = State {
            truth: accepted.wording.clone(),
            in_force: accepted,
            stand_in,
            seen,
            over: None,
            refused: u64::from(failure.is_some()),
            failure,
            refusal: None,
            history,
            held: Vec::new(),
            gone_back: None,
            accepted: 1,
        };
        let reload = Reload {
            stage,
            reading,
            source,
            trust,
            last_good: last_good.map(LastGood::start),
            state: RefCell::new(state),
            started_with,
            guard: Guard::default(),
            turn: tokio::sync::Mutex::new(()),
            held: Cell::new(false),
            overrides: Cell::new(0),
            said: Cell::new(0),
        };
        if reload.state.borrow().failure.is_none() {
            reload.keep_last_good();
        }
        Rc::new(reload)
    }

    /// The source holds this now. `again`: somebody insists, be it the same.
    pub(crate) async fn source_says(self: &Rc<Self>, bytes: Vec<u8>, again: bool) -> Result<Adopted, Refusal> {
        let _turn = self.turn.lock().await;
        let hash = ContentHash::of(&bytes);
        if self.state.borrow().seen == Some(hash) && !again {
            return Ok(Adopted::same(self.stage.generation()));
        }
        self.state.borrow_mut().seen = Some(hash);
        self.said.set(self.said.get() + 1);
        let outcome = self.take_truth(bytes.clone(), hash).await;
        self.note_source(&outcome);
        if outcome.as_ref().is_err_and(Refusal::may_pass) {
            self.try_again(bytes, hash);
        }
        outcome
    }

    /// The source could not be read. What is in force stays; what the source holds when it is back is looked at anew.
    pub(crate) fn source_failed(&self, error: &str) {
        if self.state.borrow_mut().seen.take().is_none() {
            return; // And has been said.
        }
        self.said.set(self.said.get() + 1);
        self.note_source(&Err(Refusal::Unreadable(error.to_owned())));
    }

    async fn take_truth(&self, bytes: Vec<u8>, hash: ContentHash) -> Result<Adopted, Refusal> {
        let accepted = self.reading.read_beside(self.source.clone(), bytes, self.trust).await?;
        let wording = accepted.wording.clone();
        let stays = self.state.borrow().over.as_ref().is_some_and(|over| over.outlasts(hash));
        if stays {
            // It has to be right, and waits.
            tracing::info!(hash = %hash, "the source has changed; it waits, for an override is in force");
            self.hold_true(wording);
            swap::drop_beside([accepted]);
            return Ok(Adopted::same(self.stage.generation()));
        }
        let before = self.stage.generation();
        let adopted = self.adopt(accepted, self.source.clone(), true).await?;
        if adopted.generation == before {
            // Whoever has put it right, or insists, waits for a word.
            let (generation, source) = (before, &self.source);
            if self.state.borrow().failure.is_some() {
                tracing::info!(generation, source, "the source is well again, and holds what is in force");
            } else {
                tracing::info!(generation, source, "the source holds what is in force already");
            }
        }
        self.state.borrow_mut().over = None;
        self.hold_true(wording);
        Ok(adopted)
    }

    /// The source holds this, and it is right.
    fn hold_true(&self, wording: Wording) {
        let mut state = self.state.borrow_mut();
        state.truth = wording;
        state.stand_in = None;
        drop(state);
        self.keep_last_good();
    }

    /// Lays `bytes` over what the source says.
    pub(crate) async fn put(self: &Rc<Self>, bytes: Vec<u8>, wish: Wish) -> Result<Adopted, Refusal> {
        let _turn = self.turn_of_somebody().await?;
        let generation = self.stage.generation();
        if wish.instead_of.is_some_and(|wanted| wanted != generation) {
            return Err(Refusal::Outdated { generation });
        }
        let accepted = self.reading.read_beside("PUT /config".to_owned(), bytes, Trust::Network).await;
        if wish.dry_run {
            let (accepted, before) = (accepted?, self.state.borrow().in_force.clone());
            let diff = compare_beside(before, accepted.clone()).await?;
            let (tried, warnings) = (self.stage.try_on(&accepted.config).await, accepted.warnings.clone());
            swap::drop_beside([accepted]);
            return tried.map(|()| Adopted { generation, content_of: None, diff, warnings });
        }
        let outcome = match accepted {
            Ok(accepted) => self.adopt(accepted, "PUT /config".to_owned(), true).await,
            Err(refusal) => Err(refusal),
        };
        self.note_somebody("PUT /config", &outcome);
        let adopted = outcome?;
        let over = {
            let state = self.state.borrow();
            // One after another: what the source has said since the first still waits.
            let held = state.over.as_ref().and_then(Override::laid_over).unwrap_or(state.truth.hash);
            Override::new(self.number(), Kind::Put { held, by: "PUT /config".to_owned() }, wish.lasts)
        };
        self.lay(over);
        Ok(adopted)
    }

    /// Takes the override away; what the source says holds again.
    pub(crate) async fn end_override(&self) -> Result<Adopted, Refusal> {
        let _turn = self.turn_of_somebody().await?;
        if self.state.borrow().over.is_none() {
            return Err(Refusal::NoOverride);
        }
        self.return_to_truth(true).await
    }

    async fn return_to_truth(&self, watched: bool) -> Result<Adopted, Refusal> {
        let truth = self.state.borrow().truth.clone();
        let source = self.source();
        let outcome = self.adopt_again(truth, source.clone(), watched).await;
        self.note_somebody(&source, &outcome);
        if outcome.is_ok() {
            self.state.borrow_mut().over = None;
        }
        outcome
    }

    /// Goes back to an earlier generation: this one, or the last that was not gone back from. Holds until the source's
    /// hash changes.
    pub(crate) async fn roll_back(self: &Rc<Self>, to: Option<u64>) -> Result<Adopted, Refusal> {
        let _turn = self.turn_of_somebody().await?;
        let target = |history: &History, rejected| {
            history.target(to, rejected).ok_or_else(|| match to {
                Some(generation) => Refusal::NotRemembered { generation },
                None => history.nothing_left(),
            })
        };
        let adopted = self.go_back("rollback", target).await?;
        // What the source says and was refused for what surrounds it is not what somebody wants now.
        self.said.set(self.said.get() + 1);
        Ok(adopted)
    }

    /// Rejects what is in force, for the target.
    async fn go_back(
        self: &Rc<Self>,
        by: &str,
        target: impl FnOnce(&History, ContentHash) -> Result<Earlier, Refusal>,
    ) -> Result<Adopted, Refusal> {
        let left = self.stage.generation();
        let (Earlier { number, wording }, of_truth) = {
            let state = self.state.borrow();
            let target = target(&state.history, state.in_force.hash())?;
            let of_truth = target.wording.hash == state.truth.hash && state.over.is_some();
            (target, of_truth)
        };
        if of_truth {
            // An override was what is gone back from.
            let adopted = self.return_to_truth(false).await?;
            self.state.borrow_mut().history.reject(left);
            return Ok(Adopted { content_of: Some(number), ..adopted });
        }
        let (rejected, waited) = {
            let state = self.state.borrow();
            let over = state.over.as_ref().filter(|over| over.keeps_waiting(state.truth.hash));
            (state.truth.hash, over.and_then(Override::laid_over))
        };
        let origin = format!("{by} from generation {left}");
        let outcome = self.adopt_again(wording, origin.clone(), false).await;
        self.note_somebody(&origin, &outcome);
        let adopted = outcome?;
        // Not before: what could not be left stays in force, and is somebody's to go back to.
        self.state.borrow_mut().history.reject(left);
        let by = by.to_owned();
        let kind = match waited {
            // What the source has said meanwhile was not gone back from: it still waits for its turn.
            Some(held) => Kind::Put { held, by },
            None => Kind::Rollback { rejected, by },
        };
        self.lay(Override::new(self.number(), kind, None));
        Ok(Adopted { content_of: Some(number), ..adopted })
    }

    /// What was accepted before.
    async fn adopt_again(&self, wording: Wording, origin: String, watched: bool) -> Result<Adopted, Refusal> {
        let accepted = self.reading.read_again(origin.clone(), wording).await?;
        self.adopt(accepted, origin, watched).await
    }

    /// All or nothing. `watched`: where it says so, on probation.
    async fn adopt(&self, accepted: Arc<Accepted>, origin: String, watched: bool) -> Result<Adopted, Refusal> {
        if self.stage.phase() != Phase::Serving {
            return Err(Refusal::Draining);
        }
        let before = self.state.borrow().in_force.clone();
        let generation = self.stage.generation();
        let warnings = accepted.warnings.clone();
        if before.hash() == accepted.hash() && before.effective == accepted.effective {
            self.state.borrow_mut().in_force = accepted;
            swap::drop_beside([before]);
            return Ok(Adopted { generation, content_of: None, diff: Diff::default(), warnings });
        }
        // Before the swap: from then on until it is written down, nobody may be able to give up waiting.
        let diff = compare_beside(before.clone(), accepted.clone()).await?;
        let held = if diff.needs_restart().is_empty() {
            self.state.borrow().held.clone()
        } else {
            held(&self.started_with, &accepted.effective)
        };
        let watch = match accepted.config.probation.filter(|_| watched) {
            Some(policy) => Some(self.guard.prepare(policy, &self.stage).await),
            None => None,
        };
        self.stage.swap(&before.config, &accepted.config).await?;
        let (bygone, generation) = (generation, self.stage.generation());
        let cut_short = self.guard.begin(watch);
        let entry = Generation::new(generation, origin.clone(), &diff, accepted.wording.clone());
        let mut state = self.state.borrow_mut();
        state.in_force = accepted;
        state.held = held;
        state.history.add(entry);
        state.gone_back = None;
        if cut_short {
            state.history.set_probation(bygone, history::SUPERSEDED);
        }
        if self.guard.is_watching() {
            state.history.set_probation(generation, history::WATCHED);
        }
        drop(state);
        swap::drop_beside([before]);
        tracing::info!(generation, source = origin, changes = diff.summary(), "configuration swapped");
        for key in diff.needs_restart() {
            tracing::warn!(key, "this is read when the proxy starts, and does not change until then");
        }
        Ok(Adopted { generation, content_of: None, diff, warnings })
    }

    fn lay(self: &Rc<Self>, over: Override) {
        let (number, until) = (over.number(), over.until());
        self.state.borrow_mut().over = Some(over);
        if let Some(until) = until {
            let reload = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep_until(until).await;
                for pause in again::pauses() {
                    let turn = reload.turn.lock().await;
                    let stands = reload.state.borrow().over.as_ref().is_some_and(|over| over.number() == number);
                    if !stands {
                        return;
                    }
                    tracing::info!("the override's time is over");
                    if let Ok(_) | Err(Refusal::Draining) = reload.return_to_truth(true).await {
                        return;
                    }
                    drop(turn);
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    fn number(&self) -> u64 {
        self.overrides.set(self.overrides.get() + 1);
        self.overrides.get()
    }

    /// Remembers how what the source holds went.
    fn note_source(&self, outcome: &Result<Adopted, Refusal>) {
        let failure = self.note(&self.source, outcome);
        self.state.borrow_mut().failure = failure;
    }

    /// Remembers how what somebody wanted went. It says nothing of the source.
    fn note_somebody(&self, what: &str, outcome: &Result<Adopted, Refusal>) {
        let failure = self.note(what, outcome);
        self.state.borrow_mut().refusal = failure;
    }

    fn note(&self, source: &str, outcome: &Result<Adopted, Refusal>) -> Option<Failure> {
        let mut state = self.state.borrow_mut();
        match outcome {
            Ok(_) => {
                state.accepted += 1;
                state.refusal = None;
                None
            }
            Err(refusal) => {
                tracing::error!(source, error = %refusal, "the configuration was refused; what was in force still is");
                state.refused += 1;
                Some(Failure { source: source.to_owned(), at: clock::now(), error: refusal.to_string() })
            }
        }
    }

    fn keep_last_good(&self) {
        if let Some(last_good) = &self.last_good {
            last_good.keep(self.state.borrow().truth.text.clone());
        }
    }

    /// Holds up swaps for as long as the guard lives, for a process that is about to take this one's place.
    pub(crate) async fn hold(&self) -> Held<'_> {
        let turn = self.turn.lock().await;
        self.held.set(true);
        Held { reload: self, _turn: turn }
    }

    /// The turn of somebody who waits for an answer, and who is told at once that there will be none.
    async fn turn_of_somebody(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        if self.held.get() { Err(Refusal::TakingOver) } else { Ok(self.turn.lock().await) }
    }

    /// Follows the sources of services that are called for the first time, for as long as the proxy runs.
    pub(crate) async fn follow_found(&self, found: mpsc::UnboundedReceiver<Found>) {
        self.stage.follow_found(found).await;
    }

    /// Lets go of what is used no more, for as long as the proxy runs.
    pub(crate) async fn tidy(&self) {
        self.stage.tidy().await;
    }
}

/// See [`Reload::hold`].
pub(crate) struct Held<'r> {
    reload: &'r Reload,
    _turn: MutexGuard<'r, ()>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.reload.held.set(false);
    }
}

/// What a swap changes, beside this thread.
async fn compare_beside(before: Arc<Accepted>, after: Arc<Accepted>) -> Result<Diff, Refusal> {
    let comparing = tokio::task::spawn_blocking(move || diff(&before.effective, &after.effective));
    comparing.await.map_err(|_| Refusal::Internal)
}
