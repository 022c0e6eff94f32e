//! The breaker in the plainest way, and that the real one agrees with it whatever happens.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{WELL, at, policy};
use super::{Admission, Breaker, Mark, Pass, Phase, Policy};

/// A list of outcomes, a phase, and tickets with the number of the phase.
struct Naive {
    phase: Phase,
    number: u64,
    until: u64,
    times: u32,
    out: u32,
    well: u32,
    list: Vec<(u64, Mark)>,
}

impl Naive {
    fn open_for(&self, times: u32) -> u64 {
        (5_000 << times.min(20)).min(60_000)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.number += 1;
        (self.out, self.well) = (0, 0);
        if phase != Phase::HalfOpen {
            self.list.clear();
        }
    }

    fn admit(&mut self, now: u64, probes: u8) -> Option<(u64, bool)> {
        match self.phase {
            Phase::Closed => return Some((self.number, false)),
            Phase::HalfOpen if self.out + self.well < probes.into() => {}
            _ if now < self.until => return None,
            _ => {
                self.enter(Phase::HalfOpen);
                self.until = now + self.open_for(self.times - 1);
            }
        }
        self.out += 1;
        Some((self.number, true))
    }

    fn record(&mut self, ticket: (u64, bool), mark: Mark, now: u64, policy: &Policy) {
        if ticket.0 != self.number {
            return;
        }
        let trips = if ticket.1 {
            self.out -= 1;
            self.well += 1;
            mark.failed || mark.slow
        } else {
            let slice = |milliseconds: u64| (1 + milliseconds * 1_000) / 1_000_000;
            self.list.push((slice(now), mark));
            let recent: Vec<Mark> =
                self.list.iter().filter(|(then, _)| slice(now) - then < 10).map(|(_, mark)| *mark).collect();
            let share = |count: usize| count as f64 / recent.len() as f64;
            recent.len() >= policy.min_requests as usize
                && (share(recent.iter().filter(|mark| mark.failed).count()) >= policy.failure_ratio
                    || share(recent.iter().filter(|mark| mark.slow).count()) >= policy.slow_ratio)
        };
        if trips {
            self.enter(Phase::Open);
            self.until = now + self.open_for(self.times);
            self.times += 1;
        } else if ticket.1 && self.well >= policy.probes.into() {
            self.enter(Phase::Closed);
            self.times = 0;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    End { which: usize, failed: bool, slow: bool },
    Leave { which: usize },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        4 => (any::<usize>(), prop::bool::weighted(0.5), prop::bool::weighted(0.3))
            .prop_map(|(which, failed, slow)| Step::End { which, failed, slow }),
        1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        1 => (0u64..8_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_naive_model(
        steps in prop::collection::vec(step(), 1..300), probes in 1u8..4, min_requests in 1u32..8,
    ) {
        let policy = Policy { probes, min_requests, slow: Some(Duration::from_secs(1)), ..policy() };
        let breaker = Arc::<Breaker>::default();
        let mut naive =
            Naive { phase: Phase::Closed, number: 0, until: 0, times: 0, out: 0, well: 0, list: Vec::new() };
        let mut open: Vec<(Pass, (u64, bool))> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(pause) => now += pause,
                Step::Ask => match (breaker.admit(&policy, || at(now)), naive.admit(now, probes)) {
                    (Admission::Pass(pass), Some(ticket)) => {
                        prop_assert_eq!(pass.is_probe(), ticket.1);
                        open.push((pass, ticket));
                    }
                    (Admission::Refused(wait), None) => {
                        prop_assert_eq!(wait, Duration::from_millis(naive.until - now));
                    }
                    (real, naive) => prop_assert!(false, "{:?} {:?}", real, naive),
                },
                Step::End { which, failed, slow } if !open.is_empty() => {
                    let (pass, ticket) = open.swap_remove(which % open.len());
                    pass.record(Mark { failed, slow }, &policy, at(now));
                    naive.record(ticket, Mark { failed, slow }, now, &policy);
                }
                Step::Leave { which } if !open.is_empty() => {
                    let (pass, ticket) = open.swap_remove(which % open.len());
                    drop(pass);
                    if ticket == (naive.number, true) {
                        naive.out -= 1;
                    }
                }
                _ => {}
            }
            prop_assert_eq!(breaker.phase(), naive.phase);
            let probing = open.iter().filter(|(pass, ticket)| pass.is_probe() && ticket.0 == naive.number).count();
            prop_assert!(probing <= usize::from(probes), "more probes than allowed");
        }
    }

    /// Whatever happened before, an upstream that is well from now on has a closed breaker soon.
    #[test]
    fn it_always_closes_again(steps in prop::collection::vec(step(), 1..200), probes in 1u8..4) {
        let policy = Policy { probes, min_requests: 2, ..policy() };
        let breaker = Arc::<Breaker>::default();
        let mut open: Vec<Pass> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(pause) => now += pause,
                Step::Ask => if let Admission::Pass(pass) = breaker.admit(&policy, || at(now)) {
                    open.push(pass);
                },
                Step::End { which, failed, slow } if !open.is_empty() => {
                    open.swap_remove(which % open.len()).record(Mark { failed, slow }, &policy, at(now));
                }
                _ => {}
            }
        }
        // Those that are still out never end.
        for _ in 0..2_000 {
            now += 100;
            if let Admission::Pass(pass) = breaker.admit(&policy, || at(now)) {
                pass.record(WELL, &policy, at(now));
            }
        }
        prop_assert_eq!(breaker.phase(), Phase::Closed);
    }
}
