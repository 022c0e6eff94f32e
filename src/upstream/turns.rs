//! Whose turn it is: one worker's balancer of one upstream, and who is passed over.
//!
//! The balancer knows shares; what stands against an endpoint at this moment is looked at here, and is the same for all
//! balancers. In this order, until somebody is found: who has nothing against it; who is only warming up; who of the next
//! priority; who has failed this very request; and, before a request goes nowhere, who was ejected. One that its check
//! calls down gets nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use super::balancer::{Balancer, Part, Zone};
use super::endpoints::{EndpointSet, Endpoints, Member};
use super::hashing::mix;
use super::moment::Moment;
use super::standing::Objection;
use super::state::EndpointState;
use crate::config::model::Balancing;

/// With so much more than its part of the endpoints, a zone still takes all of its requests. Envoy's 1.4.
const ZONE_RESERVE: f64 = 1.4;

/// What a request says about where it may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// Hash of what it is to be kept together by.
    pub(crate) key: Option<u64>,
    /// Endpoints that have failed it, by their ids.
    pub(crate) failed: &'a [u64],
    pub(crate) now: Moment,
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// The upstream has none.
    Empty,
    /// All that it has are down.
    Down,
}

/// A balancer over the set that it was made for, and made anew when the source has named another.
#[derive(Debug)]
pub(crate) struct Turns {
    endpoints: Arc<Endpoints>,
    set: Arc<EndpointSet>,
    balancing: Balancing,
    /// Of the lowest priority, and in nearly all upstreams of all endpoints.
    first: Tier,
    /// Of the others, in their order.
    beyond: Vec<Tier>,
    random: fastrand::Rng,
    outlook: Outlook,
}

/// The balancers of one priority.
#[derive(Debug)]
struct Tier {
    priority: u16,
    /// Of the proxy's own zone, where one is preferred.
    near: Option<Balancer>,
    /// Share of the requests that the own zone can take.
    near_share: f64,
    /// Of all others.
    far: Balancer,
    /// Somebody is neither ejected nor down; else looking through all of them can be spared.
    available: bool,
}

/// What follows from all endpoints together; looked at anew only when something has changed.
#[derive(Debug, Clone, Copy, Default)]
struct Outlook {
    changes: u64,
    /// So few are left that ejections are disregarded.
    panics: bool,
}

/// How much is put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leniency {
    None,
    Warming,
    Failed,
    Ejected,
}

impl Turns {
    /// `seed` tells workers apart.
    pub(crate) fn new(endpoints: Arc<Endpoints>, balancing: &Balancing, seed: u64) -> Self {
        let set = Arc::clone(&endpoints.load());
        let mut random = fastrand::Rng::with_seed(seed);
        let (first, beyond) = tiers(&set, balancing, &mut random);
        Turns {
            endpoints,
            set,
            balancing: balancing.clone(),
            first,
            beyond,
            random,
            outlook: Outlook { changes: u64::MAX, panics: false },
        }
    }

    /// True where it picks as this asks for.
    pub(crate) fn is_for(&self, balancing: &Balancing) -> bool {
        self.balancing == *balancing
    }

    /// The next endpoint.
    pub(crate) fn pick(&mut self, wish: Wish<'_>) -> Result<Arc<EndpointState>, Nobody> {
        self.refresh();
        let key = wish.key.unwrap_or_else(|| self.random.u64(..));
        let picked = match self.first.choose(&self.set.members, wish, key, Leniency::None, self.outlook.panics) {
            Some(position) => position,
            None => self.choose_otherwise(wish, key).ok_or_else(|| self.nobody())?,
        };
        Ok(self.set.members[picked].state.clone())
    }

    /// A lower priority's endpoints that warm up are asked before those of a higher one.
    fn choose_otherwise(&mut self, wish: Wish<'_>, key: u64) -> Option<usize> {
        let Turns { set, first, beyond, outlook, .. } = self;
        let choose = |tier: &mut Tier, leniency| tier.choose(&set.members, wish, key, leniency, outlook.panics);
        if let Some(position) = choose(first, Leniency::Warming) {
            return Some(position);
        }
        let usual = [Leniency::None, Leniency::Warming];
        for tier in beyond.iter_mut() {
            if let Some(position) = usual.into_iter().find_map(|leniency| choose(tier, leniency)) {
                return Some(position);
            }
        }
        for leniency in [Leniency::Failed, Leniency::Ejected] {
            for tier in std::iter::once(&mut *first).chain(beyond.iter_mut()) {
                if let Some(position) = choose(tier, leniency) {
                    return Some(position);
                }
            }
        }
        None
    }

    fn nobody(&self) -> Nobody {
        if self.set.members.iter().any(|member| member.weight > 0) { Nobody::Down } else { Nobody::Empty }
    }

    /// Lets go of a set that is not in force any more: what is gone from it can drain.
    pub(crate) fn refresh(&mut self) {
        let set = self.endpoints.load();
        if !Arc::ptr_eq(&set, &self.set) {
            self.set = Arc::clone(&set);
            (self.first, self.beyond) = tiers(&set, &self.balancing, &mut self.random);
            self.outlook.changes = u64::MAX;
        }
        // What was changed before the count is seen with it.
        let changes = self.endpoints.upstream.changes.load(Acquire);
        if changes != self.outlook.changes {
            self.outlook = Outlook { changes, panics: self.panics() };
            for tier in std::iter::once(&mut self.first).chain(&mut self.beyond) {
                tier.near_share = near_share(&self.set, &self.balancing, tier.priority);
                tier.available =
                    self.set.members.iter().any(|member| {
                        member.priority == tier.priority && member.weight > 0 && member.state.is_available()
                    });
            }
        }
    }

    /// Ejection is a guess. Where it and what is down leave few, the guess is given up: better that some requests fail
    /// than that all go to the last endpoints and take them down too. Where there are other priorities, those take over.
    fn panics(&self) -> bool {
        if !self.beyond.is_empty() {
            return false;
        }
        let (all, left) = self
            .set
            .members
            .iter()
            .filter(|member| member.weight > 0)
            .fold((0, 0), |(all, left), member| (all + 1, left + usize::from(member.state.is_available())));
        (left as f64) < f64::from(all) * self.balancing.panic_ratio
    }
}

impl Tier {
    fn new(priority: u16, set: &EndpointSet, balancing: &Balancing, random: &mut fastrand::Rng) -> Self {
        let mut balancer = |zone| Balancer::new(&balancing.load_balancer, Part { priority, zone }, set, random.u64(..));
        let (near, far) = match balancing.zone.as_deref() {
            None => (None, balancer(Zone::All)),
            Some(zone) => (Some(balancer(Zone::In(zone))), balancer(Zone::OutOf(zone))),
        };
        Tier { priority, near, near_share: 0.0, far, available: true }
    }

    fn choose(
        &mut self,
        members: &[Member],
        wish: Wish<'_>,
        key: u64,
        leniency: Leniency,
        panics: bool,
    ) -> Option<usize> {
        if !self.available && !panics && leniency < Leniency::Ejected {
            return None;
        }
        let usable = |position: usize| {
            let state = &*members[position].state;
            (state.standing.is_plain() || is_tolerable(state, wish.now, key, leniency, panics))
                && (leniency >= Leniency::Failed || !wish.failed.contains(&state.id))
        };
        let pick = |balancer: &mut Balancer| balancer.pick(members, key, wish.now, !wish.failed.is_empty(), usable);
        let Some(near) = &mut self.near else { return pick(&mut self.far) };
        // By the key, so that what is kept together stays together.
        if fraction(mix(key)) < self.near_share {
            pick(near).or_else(|| pick(&mut self.far))
        } else {
            pick(&mut self.far).or_else(|| pick(near))
        }
    }
}

/// Who gets a request, where that does not depend on who got others before it: the place of its key, or the only one
/// there is. Disturbs nobody's turns.
pub(crate) fn foreseen(
    endpoints: &Arc<Endpoints>,
    balancing: &Balancing,
    key: Option<u64>,
    now: Moment,
) -> Option<Arc<EndpointState>> {
    let only = endpoints.load().members.iter().filter(|member| member.weight > 0).count() == 1;
    if key.is_none() && !only {
        return None;
    }
    Turns::new(endpoints.clone(), balancing, 0).pick(Wish { key, failed: &[], now }).ok()
}

/// The balancers of each priority that the set has, the lowest first.
fn tiers(set: &EndpointSet, balancing: &Balancing, random: &mut fastrand::Rng) -> (Tier, Vec<Tier>) {
    let (first, beyond) = set.priorities.split_first().unwrap_or((&0, &[]));
    let mut tier = |priority: &u16| Tier::new(*priority, set, balancing, random);
    (tier(first), beyond.iter().map(tier).collect())
}

/// The part of its endpoints that the own zone has left, and what they can take beyond it.
fn near_share(set: &EndpointSet, balancing: &Balancing, priority: u16) -> f64 {
    let Some(zone) = balancing.zone.as_deref() else { return 0.0 };
    let part = Part { priority, zone: Zone::In(zone) };
    let weight = |available: bool| {
        let members = set.members.iter().filter(|member| !available || member.state.is_available());
        members.map(|member| f64::from(part.weight(member))).sum::<f64>()
    };
    let all = weight(false);
    if all == 0.0 { 0.0 } else { (weight(true) / all * ZONE_RESERVE).min(1.0) }
}

/// Whether what speaks against an endpoint can be put up with.
fn is_tolerable(state: &EndpointState, now: Moment, key: u64, leniency: Leniency, panics: bool) -> bool {
    if state.standing.has(Objection::Down) {
        return false;
    }
    if state.standing.has(Objection::Ejected) && !panics && leniency < Leniency::Ejected {
        return false;
    }
    if leniency >= Leniency::Warming || !state.standing.has(Objection::Warming) {
        return true;
    }
    // One throw for each endpoint and pick, or each key: as the share grows, keys come to it one by one and stay.
    fraction(mix(key ^ state.id)) < state.warmth(now)
}

/// From 0 to 1, without 1.
fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::endpoints::Discovered;
    use super::super::state::UpstreamState;
    use super::*;
    use crate::config::model::{EndpointAddress, HashKey, LoadBalancer, OnEmpty, UpstreamLimits};

    const KINDS: [LoadBalancer; 5] = [
        LoadBalancer::RoundRobin,
        LoadBalancer::LeastRequests,
        LoadBalancer::PeakEwma,
        LoadBalancer::RingHash(HashKey::ClientAddress),
        LoadBalancer::Maglev(HashKey::ClientAddress),
    ];
    const PICKS: usize = 4_000;

    /// Endpoints with these weights and zones, on ports from 1.
    fn endpoints(members: &[(u32, Option<&str>)]) -> Arc<Endpoints> {
        let limits = UpstreamLimits { connections: 1, requests: 1, waiting: 1, retries: 1 };
        let endpoints = Endpoints::awaited(Arc::new(UpstreamState::new("a", limits)), OnEmpty::Drop);
        publish(&endpoints, members);
        Arc::new(endpoints)
    }

    fn publish(endpoints: &Endpoints, members: &[(u32, Option<&str>)]) {
        let discovered = members.iter().zip(1..).map(|((weight, zone), port)| Discovered {
            address: EndpointAddress::Tcp(([127, 0, 0, 1], port).into()),
            weight: *weight,
            priority: 0,
            zone: zone.map(Arc::from),
            protocol: None,
        });
        endpoints.publish(discovered.collect(), Instant::now());
    }

    fn balancing(kind: &LoadBalancer, zone: Option<&str>) -> Balancing {
        Balancing {
            load_balancer: kind.clone(),
            zone: zone.map(str::to_owned),
            slow_start: None,
            slow_return: None,
            panic_ratio: 0.5,
        }
    }

    fn state(endpoints: &Endpoints, position: usize) -> Arc<EndpointState> {
        endpoints.load().members[position].state.clone()
    }

    /// A check says so.
    fn set_down(endpoints: &Endpoints, position: usize) {
        endpoints.upstream.raise(&state(endpoints, position), Objection::Down);
    }

    fn eject(endpoints: &Endpoints, position: usize) {
        endpoints.upstream.raise(&state(endpoints, position), Objection::Ejected);
    }

    /// What share each endpoint gets.
    fn shares(turns: &mut Turns, failed: &[u64], now: Moment) -> Vec<f64> {
        let states: Vec<_> = turns.endpoints.load().members.iter().map(|member| member.state.clone()).collect();
        let mut counts = vec![0; states.len()];
        for _ in 0..PICKS {
            let Ok(picked) = turns.pick(Wish { key: None, failed, now }) else { continue };
            counts[states.iter().position(|state| Arc::ptr_eq(state, &picked)).unwrap()] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / PICKS as f64).collect()
    }

    fn now() -> Moment {
        Instant::now().into()
    }

    #[track_caller]
    fn about(shares: &[f64], expected: &[f64], of: &LoadBalancer) {
        // A ring's shares are within some percent of what is due, whatever the keys are.
        let tolerance = if matches!(of, LoadBalancer::RingHash(_)) { 0.08 } else { 0.03 };
        for (share, due) in shares.iter().zip(expected) {
            assert!((share - due).abs() <= tolerance, "{of:?}: {shares:?} where {expected:?} is due");
            assert!(*due > 0.0 || *share == 0.0, "{of:?}: {shares:?} where {expected:?} is due");
        }
    }

    #[test]
    fn every_balancer_gives_each_its_weight() {
        for kind in &KINDS {
            let mut turns =
                Turns::new(endpoints(&[(5, None), (3, None), (2, None), (0, None)]), &balancing(kind, None), 7);
            about(&shares(&mut turns, &[], now()), &[0.5, 0.3, 0.2, 0.0], kind);
        }
    }

    #[test]
    fn one_that_is_down_gets_nothing_and_one_that_failed_only_where_no_other_is() {
        for kind in &KINDS {
            let endpoints = endpoints(&[(1, None); 3]);
            let mut turns = Turns::new(endpoints.clone(), &balancing(kind, None), 7);
            let failed = [state(&endpoints, 1).id];
            set_down(&endpoints, 0);
            about(&shares(&mut turns, &failed, now()), &[0.0, 0.0, 1.0], kind);
            set_down(&endpoints, 2);
            about(&shares(&mut turns, &failed, now()), &[0.0, 1.0, 0.0], kind);
            set_down(&endpoints, 1);
            let wish = Wish { key: None, failed: &[], now: now() };
            assert_eq!(turns.pick(wish).err(), Some(Nobody::Down));
            publish(&endpoints, &[]);
            assert_eq!(turns.pick(wish).err(), Some(Nobody::Empty));
        }
    }

    #[test]
    fn one_that_is_ejected_gets_nothing_until_too_few_are_left() {
        for kind in &KINDS {
            let endpoints = endpoints(&[(1, None); 4]);
            let mut turns = Turns::new(endpoints.clone(), &balancing(kind, None), 7);
            eject(&endpoints, 0);
            about(&shares(&mut turns, &[], now()), &[0.0, 0.333, 0.333, 0.333], kind);
            eject(&endpoints, 1);
            about(&shares(&mut turns, &[], now()), &[0.0, 0.0, 0.5, 0.5], kind);
            set_down(&endpoints, 2);
            about(&shares(&mut turns, &[], now()), &[0.333, 0.333, 0.0, 0.333], kind);
            set_down(&endpoints, 3);
            about(&shares(&mut turns, &[], now()), &[0.5, 0.5, 0.0, 0.0], kind);
            let mut unmoved =
                Turns::new(endpoints.clone(), &Balancing { panic_ratio: 0.0, ..balancing(kind, None) }, 7);
            about(&shares(&mut unmoved, &[], now()), &[0.5, 0.5, 0.0, 0.0], kind);
        }
    }

    #[test]
    fn one_that_fails_is_asked_first_no_more_often_than_is_its_share() {
        for kind in &KINDS {
            for (weights, share) in [(&[1, 1][..], 0.5), (&[1, 1, 1], 0.333), (&[2, 1, 1], 0.5)] {
                let members: Vec<_> = weights.iter().map(|weight| (*weight, None)).collect();
                let endpoints = endpoints(&members);
                let mut turns = Turns::new(endpoints.clone(), &balancing(kind, None), 7);
                let (bad, mut asked) = (state(&endpoints, 0).id, 0);
                for _ in 0..PICKS {
                    if turns.pick(Wish { key: None, failed: &[], now: now() }).unwrap().id == bad {
                        asked += 1;
                        assert_ne!(turns.pick(Wish { key: None, failed: &[bad], now: now() }).unwrap().id, bad);
                    }
                }
                let asked = f64::from(asked) / PICKS as f64;
                assert!((asked - share).abs() < 0.05, "{kind:?}, {weights:?}: {asked}");
            }
        }
    }

    #[test]
    fn a_new_endpoint_gets_a_share_that_grows() {
        const OVER: Duration = Duration::from_secs(10);
        for kind in &KINDS {
            let endpoints = endpoints(&[(1, None); 4]);
            let mut turns = Turns::new(endpoints.clone(), &balancing(kind, None), 7);
            let begin = now();
            let after = |seconds: u64| Moment::from_micros(begin.micros() + seconds * 1_000_000);
            state(&endpoints, 0).warm_up(OVER, begin);
            let mut share = |seconds| shares(&mut turns, &[], after(seconds))[0];
            let (first, half, whole) = (share(0), share(5), share(10));
            assert!(first < 0.06 && first > 0.005, "{kind:?}: {first}");
            assert!(half > 0.06 && half < 0.2, "{kind:?}: {half}");
            assert!(whole > 0.17, "{kind:?}: {whole}");
            assert!(state(&endpoints, 0).standing.is_plain());
        }
    }

    #[test]
    fn where_all_are_new_none_of_them_is() {
        for kind in &KINDS {
            let endpoints = endpoints(&[(1, None); 2]);
            let mut turns = Turns::new(endpoints.clone(), &balancing(kind, None), 7);
            (0..2).for_each(|position| state(&endpoints, position).warm_up(Duration::from_secs(10), now()));
            about(&shares(&mut turns, &[], now()), &[0.5, 0.5], kind);
        }
    }

    #[test]
    fn the_own_zone_comes_first_and_what_it_cannot_take_spills_over() {
        for kind in &KINDS {
            let endpoints =
                endpoints(&[(1, Some("a")), (1, Some("a")), (1, Some("a")), (1, Some("a")), (1, Some("b")), (1, None)]);
            let mut turns = Turns::new(endpoints.clone(), &balancing(kind, Some("a")), 7);
            about(&shares(&mut turns, &[], now()), &[0.25, 0.25, 0.25, 0.25, 0.0, 0.0], kind);
            set_down(&endpoints, 0);
            about(&shares(&mut turns, &[], now()), &[0.0, 0.333, 0.333, 0.333, 0.0, 0.0], kind);
            set_down(&endpoints, 1);
            // Half of the zone, times 1.4.
            about(&shares(&mut turns, &[], now()), &[0.0, 0.0, 0.35, 0.35, 0.15, 0.15], kind);
            set_down(&endpoints, 2);
            set_down(&endpoints, 3);
            about(&shares(&mut turns, &[], now()), &[0.0, 0.0, 0.0, 0.0, 0.5, 0.5], kind);
            let elsewhere = self::endpoints(&[(1, Some("b")), (1, Some("c"))]);
            let mut turns = Turns::new(elsewhere, &balancing(kind, Some("a")), 7);
            about(&shares(&mut turns, &[], now()), &[0.5, 0.5], kind);
        }
    }

    #[test]
    fn a_higher_priority_takes_over_where_nobody_of_a_lower_one_can() {
        for kind in &KINDS {
            let endpoints = endpoints(&[]);
            let discovered =
                [(1, 10), (1, 10), (1, 20), (1, 30)].into_iter().zip(1..).map(|((weight, priority), port)| {
                    let address = EndpointAddress::Tcp(([127, 0, 0, 1], port).into());
                    Discovered { address, weight, priority, zone: None, protocol: None }
                });
            endpoints.publish(discovered.collect(), Instant::now());
            let mut turns = Turns::new(endpoints.clone(), &balancing(kind, None), 7);
            about(&shares(&mut turns, &[], now()), &[0.5, 0.5, 0.0, 0.0], kind);
            state(&endpoints, 0).warm_up(Duration::from_secs(10), now());
            for (failed, expected) in [(&[1][..], 0), (&[0, 1], 2), (&[0, 1, 2], 3)] {
                let failed: Vec<u64> = failed.iter().map(|position| state(&endpoints, *position).id).collect();
                let picked = turns.pick(Wish { key: None, failed: &failed, now: now() }).unwrap();
                assert_eq!(picked.id, state(&endpoints, expected).id, "{kind:?}: {failed:?} have failed");
            }
            eject(&endpoints, 0);
            set_down(&endpoints, 1);
            about(&shares(&mut turns, &[], now()), &[0.0, 0.0, 1.0, 0.0], kind);
            set_down(&endpoints, 2);
            about(&shares(&mut turns, &[], now()), &[0.0, 0.0, 0.0, 1.0], kind);
            set_down(&endpoints, 3);
            about(&shares(&mut turns, &[], now()), &[1.0, 0.0, 0.0, 0.0], kind);
        }
    }

    #[test]
    fn the_quick_and_the_idle_get_more() {
        let endpoints = endpoints(&[(1, None), (1, None)]);
        state(&endpoints, 0).observe(Duration::from_millis(100), false, now());
        state(&endpoints, 1).observe(Duration::from_millis(10), false, now());
        let mut turns = Turns::new(endpoints.clone(), &balancing(&LoadBalancer::PeakEwma, None), 7);
        about(&shares(&mut turns, &[], now()), &[0.0, 1.0], &LoadBalancer::PeakEwma);
        let _running = state(&endpoints, 1).begin();
        let mut turns = Turns::new(endpoints.clone(), &balancing(&LoadBalancer::LeastRequests, None), 7);
        about(&shares(&mut turns, &[], now()), &[1.0, 0.0], &LoadBalancer::LeastRequests);
    }

    #[test]
    fn a_failure_is_not_mistaken_for_a_quick_answer() {
        let endpoints = endpoints(&[(1, None), (1, None)]);
        state(&endpoints, 0).observe(Duration::from_millis(1), true, now());
        state(&endpoints, 1).observe(Duration::from_millis(10), false, now());
        let mut turns = Turns::new(endpoints, &balancing(&LoadBalancer::PeakEwma, None), 7);
        about(&shares(&mut turns, &[], now()), &[0.0, 1.0], &LoadBalancer::PeakEwma);
    }

    #[test]
    fn a_keys_place_is_foreseen_and_a_turn_is_not() {
        let endpoints = endpoints(&[(1, None); 3]);
        for kind in &KINDS[3..] {
            let balancing = balancing(kind, None);
            let mut turns = Turns::new(endpoints.clone(), &balancing, 7);
            for key in 0..100 {
                let picked = turns.pick(Wish { key: Some(mix(key)), failed: &[], now: now() }).unwrap();
                let foreseen = foreseen(&endpoints, &balancing, Some(mix(key)), now()).unwrap();
                assert!(Arc::ptr_eq(&picked, &foreseen));
            }
        }
        assert!(foreseen(&endpoints, &balancing(&KINDS[0], None), None, now()).is_none());
        publish(&endpoints, &[(1, None), (0, None)]);
        let only = foreseen(&endpoints, &balancing(&KINDS[0], None), None, now()).unwrap();
        assert!(Arc::ptr_eq(&only, &state(&endpoints, 0)));
        set_down(&endpoints, 0);
        assert!(foreseen(&endpoints, &balancing(&KINDS[0], None), None, now()).is_none());
    }

    #[test]
    fn workers_share_a_sets_tables() {
        let endpoints = endpoints(&[(1, None); 3]);
        let ring = |turns: &Turns| match &turns.first.far {
            Balancer::RingHash(ring) => ring.clone(),
            other => panic!("{other:?}"),
        };
        let balancing = balancing(&KINDS[3], None);
        let (one, other) = (Turns::new(endpoints.clone(), &balancing, 1), Turns::new(endpoints, &balancing, 2));
        assert!(Arc::ptr_eq(&ring(&one), &ring(&other)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever stands against whom: nobody who is down is picked, and somebody is while somebody is not.
        #[test]
        fn somebody_who_is_up_is_picked(
            members in prop::collection::vec((0u32..3, any::<bool>(), any::<bool>(), any::<bool>(), 0u8..3), 1..8),
            kind in prop::sample::select(KINDS.to_vec()), prefers in any::<bool>(), key in prop::option::of(any::<u64>()),
        ) {
            let zones = [None, Some("a"), Some("b")];
            let written: Vec<_> = members.iter().map(|(weight, .., zone)| (*weight, zones[usize::from(*zone)])).collect();
            let endpoints = endpoints(&written);
            let mut failed = Vec::new();
            for (position, (_, down, has_failed, warming, _)) in members.iter().enumerate() {
                if *down { set_down(&endpoints, position) }
                if *has_failed { failed.push(state(&endpoints, position).id) }
                if *warming { state(&endpoints, position).warm_up(Duration::from_secs(10), now()) }
            }
            let mut turns = Turns::new(endpoints.clone(), &balancing(&kind, prefers.then_some("a")), 7);
            let up = |position: usize| members[position].0 > 0 && !members[position].1;
            let fresh = |position: usize| up(position) && !members[position].2;
            for _ in 0..20 {
                match turns.pick(Wish { key, failed: &failed, now: now() }) {
                    Ok(picked) => {
                        let picked = (0..members.len()).find(|position| state(&endpoints, *position).id == picked.id).unwrap();
                        prop_assert!(up(picked));
                        prop_assert!(fresh(picked) || !(0..members.len()).any(fresh));
                    }
                    Err(_) => prop_assert!(!(0..members.len()).any(up)),
                }
            }
        }
    }
}
