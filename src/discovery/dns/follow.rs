//! Follows one upstream: asks what is due, takes down what comes, and tells what changed.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::book::{Book, Terms};
use super::walk::{Endpoint, Finding, Step, Verdict, Wanted, walk};
use crate::dns::client::Ask;
use crate::dns::nameservers::{Current, Resolver};
use crate::dns::question::{Answer, Failure, Question};
use crate::dns::search::Search;

/// The runtime's clock ticks in milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// A name as it is written, and what it is to lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Addresses { name: String, port: u16 },
    Services { name: String },
}

/// What there is to tell of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// All of its endpoints; and what of them could not be had, where something could not.
    Endpoints(Vec<Endpoint>, Option<String>),
    /// DNS has answered, and it has none.
    Empty(String),
    /// Something could not be had, and what was told before does not rest on it.
    PartlyFailed(String),
    /// Something could not be had; what was told before still holds.
    Failed(String),
    /// Nor has anything been had for so long that it holds no longer.
    Expired,
}

/// Follows the target for ever, or until there are no more nameservers to ask.
pub(super) async fn follow<A: Ask + 'static>(
    target: &Target,
    terms: Terms,
    mut nameservers: watch::Receiver<Current<A>>,
    tell: impl FnMut(News),
) {
    let mut follower = Follower {
        book: Book::new(terms, fastrand::u64(..)),
        asking: JoinSet::new(),
        questions: HashMap::new(),
        answered: false,
        failed: false,
        last: None,
        usable_until: None,
        tell,
    };
    loop {
        let resolver = nameservers.borrow_and_update().clone();
        let changed = match resolver {
            Ok(resolver) => {
                let wanted = target.under(&resolver.search);
                tokio::select! {
                    changed = nameservers.changed() => changed,
                    never = follower.run(&wanted, &resolver) => match never {},
                }
            }
            Err(failure) => {
                (follower.tell)(News::Failed(failure.0));
                nameservers.changed().await
            }
        };
        if changed.is_err() {
            return;
        }
        follower.begin_anew();
    }
}

impl Target {
    fn under(&self, search: &Search) -> Wanted {
        match self {
            Target::Addresses { name, port } => Wanted::Addresses { candidates: search.candidates(name), port: *port },
            Target::Services { name } => Wanted::Services { candidates: search.candidates(name) },
        }
    }
}

type Outcome = Result<Answer, Failure>;

struct Follower<T> {
    book: Book,
    asking: JoinSet<Outcome>,
    /// What each task asks.
    questions: HashMap<Id, Question>,
    /// There was an answer since something was told.
    answered: bool,
    /// And a failure.
    failed: bool,
    /// The endpoints that were told last, while they hold.
    last: Option<Vec<Endpoint>>,
    /// How long the last endpoints may be used, should nothing else be heard.
    usable_until: Option<Instant>,
    tell: T,
}

impl<T: FnMut(News)> Follower<T> {
    async fn run<A: Ask + 'static>(&mut self, wanted: &Wanted, resolver: &Rc<Resolver<A>>) -> std::convert::Infallible {
        loop {
            let now = Instant::now();
            let wake = match walk(wanted, &self.book, now) {
                Step::Ask(questions) => {
                    questions.into_iter().for_each(|question| self.ask(question, resolver.clone(), now));
                    continue;
                }
                Step::Wait(until) => Some(until),
                Step::Done(verdict) => self.conclude(verdict, now),
            };
            let woken = async {
                match wake {
                    Some(wake) => sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(outcome) = self.asking.join_next_with_id() => {
                    self.learn(outcome);
                    // Others that are there already are taken with it, so that there is one update.
                    while let Some(outcome) = self.asking.try_join_next_with_id() {
                        self.learn(outcome);
                    }
                }
                () = woken => {}
            }
        }
    }

    fn ask<A: Ask + 'static>(&mut self, question: Question, resolver: Rc<Resolver<A>>, now: Instant) {
        self.book.ask(question.clone(), now);
        let asked = question.clone();
        let task = self.asking.spawn_local(async move { resolver.client.ask(&asked).await });
        self.questions.insert(task.id(), question);
    }

    fn learn(&mut self, outcome: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match outcome {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(Failure(format!("the query came to grief: {error}")))),
        };
        let Some(question) = self.questions.remove(&id) else { return };
        self.answered |= outcome.is_ok();
        self.failed |= outcome.is_err();
        self.book.learn(question, outcome, Instant::now());
    }

    /// Tells what is new. The answer is when to look again, if nothing happens before.
    fn conclude(&mut self, verdict: Verdict, now: Instant) -> Option<Instant> {
        let Verdict { finding, failure, stale, questions } = verdict;
        let due = questions.iter().filter_map(|question| self.book.due(question));
        let too_old =
            questions.iter().filter_map(|question| self.book.addresses_until(question)).map(|until| until + TICK);
        let wake = due.chain(too_old.filter(|too_old| *too_old > now)).min();
        let (answered, failed) = (std::mem::take(&mut self.answered), std::mem::take(&mut self.failed));
        match (finding, failure) {
            (Finding::Endpoints(endpoints), failure) => {
                self.usable_until = questions.iter().filter_map(|question| self.book.addresses_until(question)).max();
                if answered || self.last.as_ref() != Some(&endpoints) {
                    self.last = Some(endpoints.clone());
                    (self.tell)(News::Endpoints(endpoints, failure));
                } else if let Some(failure) = failure.filter(|_| failed) {
                    (self.tell)(if stale { News::Failed(failure) } else { News::PartlyFailed(failure) });
                }
            }
            (Finding::Empty(why), None) => {
                (self.usable_until, self.last) = (None, None);
                if answered {
                    (self.tell)(News::Empty(why));
                }
            }
            // That there was nobody once does not mean that there is nobody still.
            (Finding::Empty(_), Some(failure)) => {
                if failed {
                    (self.tell)(News::Failed(failure));
                }
            }
            (Finding::Unknown, failure) => {
                if self.usable_until.is_some_and(|until| now > until) {
                    (self.usable_until, self.last) = (None, None);
                    (self.tell)(News::Expired);
                }
                if let Some(failure) = failure.filter(|_| failed) {
                    (self.tell)(News::Failed(failure));
                }
            }
        }
        self.book.keep(|question| questions.contains(question));
        wake
    }

    /// Other servers: what is on its way is of no use, and all has to be asked again.
    fn begin_anew(&mut self) {
        self.asking = JoinSet::new();
        self.questions.clear();
        self.book.expire();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::SocketAddr;

    use super::*;
    use crate::dns::question::{FullName, Kind, Records};

    const TERMS: Terms =
        Terms { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(300), stale: Duration::from_secs(60) };

    type Saying = (&'static str, Kind, Duration, Outcome);

    /// Servers that say what stands here, each after a while; what does not stand here they never answer.
    #[derive(Debug, Default)]
    struct Scripted {
        answers: RefCell<Vec<Saying>>,
        asked: RefCell<Vec<String>>,
    }

    impl Scripted {
        fn say(&self, name: &'static str, kind: Kind, after: u64, outcome: Result<Answer, Failure>) {
            let mut answers = self.answers.borrow_mut();
            answers.retain(|(known, known_kind, ..)| (*known, *known_kind) != (name, kind));
            answers.push((name, kind, Duration::from_millis(after), outcome));
        }
    }

    impl Ask for Rc<Scripted> {
        async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
            self.asked.borrow_mut().push(question.to_string());
            let answers = self.answers.borrow().clone();
            match answers.iter().find(|(name, kind, ..)| *name == question.name.as_str() && *kind == question.kind) {
                Some((_, _, after, outcome)) => {
                    tokio::time::sleep(*after).await;
                    outcome.clone()
                }
                None => std::future::pending().await,
            }
        }
    }

    fn addresses(texts: &[&str], ttl: u64) -> Result<Answer, Failure> {
        let records = match texts {
            [] => Records::NoData,
            texts => Records::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect()),
        };
        Ok(Answer { records, ttl: Some(Duration::from_secs(ttl)), along: Vec::new() })
    }

    fn servfail() -> Result<Answer, Failure> {
        Err(Failure("Server Failure".to_owned()))
    }

    /// What is told within this time, as text.
    async fn told(servers: &Rc<Scripted>, seconds: u64, change: impl AsyncFnOnce()) -> Vec<(f64, String)> {
        let told = RefCell::new(Vec::new());
        let began = Instant::now();
        let search = Search { domains: vec![FullName::new("corp.example")], ndots: 1 };
        let resolver = Rc::new(Resolver { client: servers.clone(), search });
        let (_keep, nameservers) = watch::channel(Ok(resolver));
        let target = Target::Addresses { name: "web".to_owned(), port: 80 };
        let tell = |news: News| {
            let text = match news {
                News::Endpoints(endpoints, failure) => {
                    let addresses = endpoints.iter().map(|endpoint| SocketAddr::to_string(&endpoint.address));
                    addresses.chain(failure).collect::<Vec<_>>().join(" ")
                }
                other => format!("{other:?}"),
            };
            told.borrow_mut().push(((began.elapsed().as_secs_f64() * 10.0).round() / 10.0, text));
        };
        tokio::select! {
            () = follow(&target, TERMS, nameservers, tell) => {}
            () = async { change().await; std::future::pending().await } => {}
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        }
        told.into_inner()
    }

    fn texts(told: &[(f64, String)]) -> Vec<&str> {
        told.iter().map(|(_, text)| text.as_str()).collect()
    }

    async fn local(test: impl Future<Output = ()>) {
        tokio::task::LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_followed_and_failures_keep_what_was_there() {
        local(async {
            let servers = Rc::<Scripted>::default();
            servers.say("web.corp.example.", Kind::A, 5, addresses(&["10.0.0.2", "10.0.0.1"], 10));
            servers.say("web.corp.example.", Kind::Aaaa, 5, addresses(&[], 600));
            let told = told(&servers, 300, async || {
                tokio::time::sleep(Duration::from_secs(5)).await;
                servers.say("web.corp.example.", Kind::A, 5, addresses(&["10.0.0.3"], 10));
                tokio::time::sleep(Duration::from_secs(10)).await;
                servers.say("web.corp.example.", Kind::A, 5, servfail());
            })
            .await;
            assert_eq!(told[0], (0.0, "10.0.0.1:80 10.0.0.2:80".to_owned()));
            assert_eq!(told[1].1, "10.0.0.3:80");
            assert!(told[1].0 >= 10.0 && told[1].0 <= 11.1, "{told:?}");
            let failed = "Failed(\"web.corp.example. A: Server Failure\")";
            let expired = told.iter().position(|(_, text)| text == "Expired").unwrap();
            // Learnt at 10 to 11 s, good for 10 s, usable for 60 s more.
            assert!(told[expired].0 >= 80.0 && told[expired].0 <= 82.0, "{told:?}");
            assert!(texts(&told[2..expired]).iter().all(|text| *text == failed), "{told:?}");
            assert!(texts(&told[expired + 1..]).iter().all(|text| *text == failed), "{told:?}");
            // Never asked in a hurry: 230 s of failure, a question in 5 s at most.
            assert!(told.len() < 60, "{}", told.len());
            assert_eq!(servers.asked.borrow().iter().filter(|asked| asked.ends_with("AAAA")).count(), 1);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_is_never_answered_holds_nothing_up() {
        local(async {
            let servers = Rc::<Scripted>::default();
            servers.say("web.corp.example.", Kind::A, 5, addresses(&["10.0.0.1"], 60));
            let told = told(&servers, 30, async || {}).await;
            assert_eq!(told, [(0.5, "10.0.0.1:80 web.corp.example. AAAA: no answer yet".to_owned())]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_are_one_answer_where_both_come() {
        local(async {
            let servers = Rc::<Scripted>::default();
            servers.say("web.corp.example.", Kind::A, 5, addresses(&["10.0.0.1"], 60));
            servers.say("web.corp.example.", Kind::Aaaa, 300, addresses(&["fd00::1"], 60));
            let told = told(&servers, 30, async || {}).await;
            assert_eq!(texts(&told), ["10.0.0.1:80 [fd00::1]:80"]);
        })
        .await;
    }
}
