//! What DNS has said, how long that holds, and when each question is due again. No socket and no clock: times are
//! parameters, chance has a seed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::question::{Along, Answer, Failure, FullName, Kind, Question, Records};

/// After this many failures in a row the pause has grown as far as it goes.
const DOUBLINGS: u32 = 4;
/// The pause never grows beyond this (jitter aside): a server that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Answers are used up to this share longer than they say, so that a fleet of proxies does not ask all at once.
const JITTER: f64 = 0.1;
/// And pauses after a failure are up to this share longer.
const PAUSE_JITTER: f64 = 0.5;
/// A question that was never answered is waited for this long before one goes on without it. Well above what a
/// nameserver in the next datacenter takes; some servers never answer AAAA.
const GRACE: Duration = Duration::from_millis(500);

/// How answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// An answer holds at least this long, whatever it says: a TTL of 0 is common.
    pub(super) min_ttl: Duration,
    /// And at most this long.
    pub(super) max_ttl: Duration,
    /// Where nobody answers any more, the last answer is used for this long after it has expired.
    pub(super) stale: Duration,
}

/// Answers by question. Judges each question for itself: that one failed says nothing of another.
#[derive(Debug)]
pub(super) struct Book {
    terms: Terms,
    random: fastrand::Rng,
    entries: HashMap<Question, Entry>,
    /// The same for all that is learnt at once: what was learnt together is due together.
    jitter: f64,
    learnt: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    last: Option<Last>,
    /// Since when it is being asked.
    asked: Option<Instant>,
    due: Option<Instant>,
    /// Since the last answer, in a row.
    failures: u32,
    failure: Option<Failure>,
}

/// The last answer that there was.
#[derive(Debug)]
struct Last {
    answer: Answer,
    expires: Instant,
}

/// What is known of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// It has to be asked.
    Due,
    /// It is being asked; nothing is known yet. Until then, it pays to wait.
    Awaited(Instant),
    Answer(&'a Answer),
    /// It failed when it was last asked; this is what there was before.
    Stale(&'a Answer, &'a Failure),
    /// It failed, and what there was before (if anything) is too old. `None`: it is being asked, for too long already.
    Failed(Option<&'a Failure>),
}

impl Book {
    pub(super) fn new(terms: Terms, seed: u64) -> Self {
        Book { terms, random: fastrand::Rng::with_seed(seed), entries: HashMap::new(), jitter: 1.0, learnt: None }
    }

    pub(super) fn look(&self, question: &Question, now: Instant) -> Known<'_> {
        let Some(entry) = self.entries.get(question) else { return Known::Due };
        // What is due soon is asked together with what is due now.
        if entry.asked.is_none() && entry.due.is_none_or(|due| due <= now + self.terms.min_ttl / 2) {
            return Known::Due;
        }
        let usable = entry.last.as_ref().filter(|last| now <= last.expires + self.terms.stale);
        match (usable, &entry.failure, entry.asked) {
            (Some(last), None, _) => Known::Answer(&last.answer),
            (Some(last), Some(failure), _) => Known::Stale(&last.answer, failure),
            (None, Some(failure), _) => Known::Failed(Some(failure)),
            (None, None, Some(asked)) if now < asked + GRACE => Known::Awaited(asked + GRACE),
            (None, None, _) => Known::Failed(None),
        }
    }

    /// When the question is to be asked again. `None` while it is.
    pub(super) fn due(&self, question: &Question) -> Option<Instant> {
        let entry = self.entries.get(question)?;
        entry.due.filter(|_| entry.asked.is_none())
    }

    /// Until when the addresses of the last answer may be used, should no other come.
    pub(super) fn addresses_until(&self, question: &Question) -> Option<Instant> {
        let last = self.entries.get(question)?.last.as_ref()?;
        (!last.answer.addresses().is_empty()).then(|| last.expires + self.terms.stale)
    }

    /// The question is on its way.
    pub(super) fn ask(&mut self, question: Question, now: Instant) {
        self.entries.entry(question).or_default().asked = Some(now);
    }

    /// Takes down what came of it.
    pub(super) fn learn(&mut self, question: Question, outcome: Result<Answer, Failure>, now: Instant) {
        match outcome {
            Ok(answer) => {
                if self.learnt.replace(now) != Some(now) {
                    self.jitter = 1.0 + JITTER * self.random.f64();
                }
                let ttl = self.held(answer.ttl);
                for (question, answer) in came_along(&answer, ttl) {
                    let ttl = self.held(answer.ttl);
                    self.write(question, answer, ttl, now);
                }
                self.write(question, answer, ttl, now);
            }
            Err(failure) => {
                let jitter = 1.0 + PAUSE_JITTER * self.random.f64();
                let entry = self.entries.entry(question).or_default();
                let pause = self.terms.min_ttl * 2_u32.pow(entry.failures.min(DOUBLINGS));
                entry.asked = None;
                entry.due = Some(now + pause.min(LONGEST_PAUSE.max(self.terms.min_ttl)).mul_f64(jitter));
                entry.failures = entry.failures.saturating_add(1);
                entry.failure = Some(failure);
            }
        }
    }

    /// Everything is due, and nothing forgotten: other servers answer from here on.
    pub(super) fn expire(&mut self) {
        for entry in self.entries.values_mut() {
            entry.asked = None;
            entry.due = None;
        }
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, wanted: impl Fn(&Question) -> bool) {
        self.entries.retain(|question, _| wanted(question));
    }

    fn held(&self, ttl: Option<Duration>) -> Duration {
        ttl.unwrap_or_default().min(self.terms.max_ttl).max(self.terms.min_ttl)
    }

    fn write(&mut self, question: Question, answer: Answer, ttl: Duration, now: Instant) {
        let last = Some(Last { answer, expires: now + ttl });
        let due = Some(now + ttl.mul_f64(self.jitter));
        self.entries.insert(question, Entry { last, due, ..Entry::default() });
    }
}

/// Addresses that came with an SRV record, as answers of their own: for both families, for a server that sends a target's
/// addresses along sends all of them. They hold no longer than the record.
fn came_along(answer: &Answer, most: Duration) -> Vec<(Question, Answer)> {
    let mut targets: HashMap<&FullName, Vec<&Along>> = HashMap::new();
    for along in &answer.along {
        targets.entry(&along.name).or_default().push(along);
    }
    let mut answers = Vec::with_capacity(2 * targets.len());
    for (name, along) in targets {
        let ttl = along.iter().map(|along| along.ttl).min().unwrap_or(most).min(most);
        for kind in [Kind::A, Kind::Aaaa] {
            let of_kind = along.iter().map(|along| along.address).filter(|address| kind.holds(*address));
            let addresses: Vec<_> = of_kind.collect();
            let records = if addresses.is_empty() { Records::NoData } else { Records::Addresses(addresses) };
            let question = Question { name: name.clone(), kind };
            answers.push((question, Answer { records, ttl: Some(ttl), along: Vec::new() }));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms =
        Terms { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(300), stale: Duration::from_secs(3600) };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn question() -> Question {
        Question { name: FullName::new("web.example"), kind: Kind::A }
    }

    fn answer(ttl: Option<u64>) -> Answer {
        let records = Records::Addresses(vec!["10.0.0.1".parse().unwrap()]);
        Answer { records, ttl: ttl.map(Duration::from_secs), along: Vec::new() }
    }

    fn failure() -> Failure {
        Failure("Server Failure".to_owned())
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_between_floor_and_ceiling() {
        for (ttl, least, most) in
            [(Some(30), 30.0, 33.0), (Some(0), 1.0, 1.1), (None, 1.0, 1.1), (Some(86_400), 300.0, 330.0)]
        {
            for seed in 0..50 {
                let (mut book, now) = (Book::new(TERMS, seed), Instant::now());
                book.learn(question(), Ok(answer(ttl)), now);
                let due = book.due(&question()).unwrap() - now;
                assert!(due >= seconds(least) && due <= seconds(most), "{ttl:?}: {due:?}");
                assert_eq!(book.look(&question(), now + due - seconds(0.6)), Known::Answer(&answer(ttl)));
                assert_eq!(book.look(&question(), now + due), Known::Due);
            }
        }
    }

    #[test]
    fn a_failure_keeps_the_answer_for_as_long_as_is_written_down() {
        let (mut book, now) = (Book::new(TERMS, 1), Instant::now());
        book.learn(question(), Ok(answer(Some(30))), now);
        let fails_at = |book: &mut Book, after: f64| {
            book.ask(question(), now + seconds(after));
            book.learn(question(), Err(failure()), now + seconds(after));
        };
        fails_at(&mut book, 31.0);
        assert_eq!(book.look(&question(), now + seconds(31.1)), Known::Stale(&answer(Some(30)), &failure()));
        fails_at(&mut book, 3630.0);
        assert_eq!(book.look(&question(), now + seconds(3630.0)), Known::Stale(&answer(Some(30)), &failure()));
        assert_eq!(book.addresses_until(&question()), Some(now + seconds(3630.0)));
        assert_eq!(book.look(&question(), now + seconds(3630.001)), Known::Failed(Some(&failure())));
        book.learn(question(), Ok(answer(Some(5))), now + seconds(4000.0));
        assert_eq!(book.look(&question(), now + seconds(4001.0)), Known::Answer(&answer(Some(5))));
    }

    #[test]
    fn what_was_never_answered_is_waited_for_but_not_for_long() {
        let (mut book, now) = (Book::new(TERMS, 1), Instant::now());
        assert_eq!(book.look(&question(), now), Known::Due);
        book.ask(question(), now);
        assert_eq!(book.look(&question(), now), Known::Awaited(now + GRACE));
        assert_eq!(book.look(&question(), now + GRACE), Known::Failed(None));
        book.learn(question(), Ok(answer(Some(2))), now + GRACE);
        // While it is asked again, the answer stands.
        book.ask(question(), now + seconds(3.0));
        assert_eq!(book.look(&question(), now + seconds(7.0)), Known::Answer(&answer(Some(2))));
    }

    #[test]
    fn addresses_that_come_along_are_answers_of_both_families() {
        let target = |name: &str, address: &str, ttl| Along {
            name: FullName::new(name),
            address: address.parse().unwrap(),
            ttl: Duration::from_secs(ttl),
        };
        let along = vec![target("a.", "10.0.0.1", 90), target("a.", "10.0.0.2", 20), target("b.", "fd00::1", 60)];
        let srv = Answer { records: Records::Services(Vec::new()), ttl: Some(Duration::from_secs(60)), along };
        let (mut book, now) = (Book::new(TERMS, 1), Instant::now());
        book.learn(Question { name: FullName::new("web."), kind: Kind::Srv }, Ok(srv), now);
        let look = |name: &str, kind| match book.look(&Question { name: FullName::new(name), kind }, now) {
            Known::Answer(answer) => (answer.addresses().to_vec(), answer.ttl.unwrap().as_secs()),
            other => panic!("{other:?}"),
        };
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(look("a.", Kind::A), (addresses(&["10.0.0.1", "10.0.0.2"]), 20));
        assert_eq!(look("a.", Kind::Aaaa), (Vec::new(), 20));
        assert_eq!(look("b.", Kind::Aaaa), (addresses(&["fd00::1"]), 60));
    }

    proptest! {
        /// Whatever DNS says and when: a question is never asked twice within the floor, is always asked again within
        /// the ceiling, and an answer is used while it is young enough and never after.
        #[test]
        fn questions_come_neither_too_often_nor_too_seldom(
            seed in any::<u64>(),
            outcomes in prop::collection::vec((prop::option::weighted(0.6, 0_u64..1000), 0_u64..5_000), 1..60),
        ) {
            let mut book = Book::new(TERMS, seed);
            let mut now = Instant::now();
            let mut last: Option<Instant> = None;
            for (ttl, took) in outcomes {
                book.ask(question(), now);
                now += Duration::from_millis(took);
                let outcome = ttl.map(|ttl| answer(Some(ttl))).ok_or_else(failure);
                if outcome.is_ok() {
                    last = Some(now + Duration::from_secs(ttl.unwrap_or(0)).clamp(TERMS.min_ttl, TERMS.max_ttl));
                }
                book.learn(question(), outcome.clone(), now);
                let due = book.due(&question()).unwrap();
                prop_assert!(due >= now + TERMS.min_ttl);
                prop_assert!(due <= now + TERMS.max_ttl.mul_f64(1.0 + JITTER));
                if outcome.is_err() {
                    prop_assert!(due <= now + LONGEST_PAUSE.mul_f64(1.0 + PAUSE_JITTER));
                }
                let usable = last.is_some_and(|expires| now <= expires + TERMS.stale);
                match book.look(&question(), now) {
                    Known::Answer(_) => prop_assert!(outcome.is_ok()),
                    Known::Stale(..) => prop_assert!(outcome.is_err() && usable),
                    Known::Failed(_) => prop_assert!(outcome.is_err() && !usable),
                    other => prop_assert!(false, "{other:?}"),
                }
                now = due;
            }
        }
    }
}
