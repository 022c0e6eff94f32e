//! How endpoints take turns: one arm for each way.
//!
//! To add a balancer: a file beside this one with the pure part, an arm here and in `config::model::LoadBalancer`, and
//! its word in `config::raw`.

use std::sync::{Arc, Mutex, PoisonError};

use super::RoundRobin;
use super::endpoints::{EndpointSet, Member};
use super::hashing::maglev::Maglev;
use super::hashing::ring::Ring;
use super::moment::Moment;
use super::two_choices::TwoChoices;
use crate::config::model::LoadBalancer;

/// Picks positions of a set. Owned by one worker; tables are shared.
#[derive(Debug)]
pub(crate) enum Balancer {
    RoundRobin(RoundRobin),
    LeastRequests(TwoChoices),
    PeakEwma { choices: TwoChoices, mean_weight: f64 },
    RingHash(Arc<Ring>),
    Maglev(Arc<Maglev>),
}

/// Some of a set's members: those of a priority, and of these those in a zone, or those that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) priority: u16,
    pub(crate) zone: Zone<'a>,
}

/// Where members stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone<'a> {
    All,
    In(&'a str),
    OutOf(&'a str),
}

impl Part<'_> {
    /// The member's weight, where it belongs to the part.
    pub(crate) fn weight(self, member: &Member) -> u32 {
        let stands_there = match self.zone {
            Zone::All => true,
            Zone::In(zone) => member.zone.as_deref() == Some(zone),
            Zone::OutOf(zone) => member.zone.as_deref() != Some(zone),
        };
        if stands_there && member.priority == self.priority { member.weight } else { 0 }
    }
}

impl Balancer {
    /// `seed` tells workers apart, so that they do not all begin with the same endpoint.
    pub(crate) fn new(kind: &LoadBalancer, part: Part<'_>, set: &EndpointSet, seed: u64) -> Self {
        let weights = || set.members.iter().map(|member| part.weight(member));
        match kind {
            LoadBalancer::RoundRobin => Balancer::RoundRobin(RoundRobin::new(weights(), seed)),
            LoadBalancer::LeastRequests => Balancer::LeastRequests(TwoChoices::new(weights(), seed)),
            LoadBalancer::PeakEwma => {
                let (sum, count) = weights()
                    .filter(|weight| *weight > 0)
                    .fold((0.0, 0.0), |(sum, count), weight| (sum + f64::from(weight), count + 1.0));
                Balancer::PeakEwma {
                    choices: TwoChoices::new(weights(), seed),
                    mean_weight: sum / f64::max(count, 1.0),
                }
            }
            LoadBalancer::RingHash(_) => Balancer::RingHash(set.tables.rings.of(part, set, Ring::new)),
            LoadBalancer::Maglev(_) => Balancer::Maglev(set.tables.maglevs.of(part, set, Maglev::new)),
        }
    }

    /// The position whose turn it is, or another that is usable where it is `again` that the request asks. `key` counts
    /// where the request is to go where its like have gone.
    pub(crate) fn pick(
        &mut self,
        members: &[Member],
        key: u64,
        now: Moment,
        again: bool,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Balancer::RoundRobin(turns) if again => turns.pick_out_of_turn(key, usable),
            Balancer::RoundRobin(turns) => turns.pick(usable),
            Balancer::LeastRequests(choices) => choices.pick(usable, |position| {
                let member = &members[position];
                f64::from(member.state.in_flight()) / f64::from(member.weight)
            }),
            Balancer::PeakEwma { choices, mean_weight } => {
                choices.pick(usable, |position| expected_wait(&members[position], *mean_weight, now))
            }
            Balancer::RingHash(ring) => ring.pick(key, usable),
            Balancer::Maglev(table) => table.pick(key, usable),
        }
    }
}

/// How long a request would take here: what one takes, times those that are before it. One that was never asked is tried
/// at once, and then waited for before others follow.
fn expected_wait(member: &Member, mean_weight: f64, now: Moment) -> f64 {
    let ahead = f64::from(member.state.in_flight()) * mean_weight / f64::from(member.weight);
    match member.state.latency.expected(now) {
        Some(latency) => latency * (ahead + 1.0),
        None if ahead == 0.0 => 0.0,
        None => f64::MAX,
    }
}

/// Tables of a set, made by the worker that needs one first.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    rings: Shared<Ring>,
    maglevs: Shared<Maglev>,
}

/// Taken once a worker and set, never by a request: the others wait for the first rather than do the same work.
#[derive(Debug)]
struct Shared<T>(Mutex<Vec<(Vec<u32>, Arc<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::default())
    }
}

impl<T> Shared<T> {
    fn of(&self, part: Part<'_>, set: &EndpointSet, make: fn(&[(&str, u32)]) -> T) -> Arc<T> {
        let endpoints: Vec<(&str, u32)> =
            set.members.iter().map(|member| (&*member.state.label, part.weight(member))).collect();
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = made.iter().find(|(of, _)| *of == weights) {
            return table.clone();
        }
        let table = Arc::new(make(&endpoints));
        made.push((weights, table.clone()));
        table
    }
}
