//! What follows from the end of an attempt for its endpoint, and from that of a request for its upstream.
//!
//! Ejection acts before the breaker. A failure that may yet come to an ejection is *held*: where the endpoint is ejected,
//! it counts for nothing, for the upstream without that endpoint is well; where the endpoint answers again, it counts
//! after all. Where the endpoint may not be ejected, it counts at once. What was counted of an endpoint before it is
//! ejected for its ratio is taken out again. So one dead endpoint of two never opens the breaker.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use super::breaker::{Admission, Pass, Phase};
use super::ejection::{Cause, counts_in_a_row, may_eject};
use super::endpoints::{EndpointSet, Endpoints, Member};
use super::moment::Moment;
use super::outlier::outliers;
use super::standing::Objection;
use super::state::{EndpointState, UpstreamState};
use super::window::Mark;
use crate::config::model::{CircuitBreaker, Ejection};
use crate::outcome::Class;

/// An upstream and what it judges by. Made for each use; costs nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) upstream: &'a UpstreamState,
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) ejection: Option<&'a Ejection>,
    pub(crate) breaker: Option<&'a CircuitBreaker>,
    /// Over how long the share of an endpoint grows that comes back.
    pub(crate) slow_return: Option<Duration>,
}

impl Judge<'_> {
    /// May a request go to the upstream? `None` where no breaker asks.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Moment) -> Result<Option<Pass>, Duration> {
        let Some(policy) = self.breaker else { return Ok(None) };
        match self.upstream.breaker.admit(policy, now) {
            Admission::Pass(pass) => {
                if pass.begins_round() {
                    tracing::info!(upstream = &*self.upstream.name, "the circuit breaker is half-open: probing");
                }
                Ok(Some(pass))
            }
            Admission::Refused(wait) => Err(wait),
        }
    }

    /// An attempt at an endpoint has ended.
    pub(crate) fn attempt_ended(&self, endpoint: &EndpointState, class: Class, took: Duration, now: Moment) {
        if let Some(failed) = class.is_failure() {
            endpoint.observe(took, failed, now);
        }
        // Those without an answer are counted where they are given up.
        if matches!(class, Class::ServerError | Class::GatewayError) {
            endpoint.count_failure();
        }
        if let Some(policy) = self.ejection
            && !endpoint.is_out()
            && let Some(cause) = endpoint.ejection.record(class, policy, now)
        {
            self.eject(endpoint, policy, cause, now);
        }
    }

    /// A request that the breaker has let through has ended, with its retries.
    pub(crate) fn request_ended(
        &self,
        pass: Pass,
        endpoint: Option<&EndpointState>,
        class: Class,
        took: Duration,
        now: Moment,
    ) {
        let (Some(policy), Some(failed)) = (self.breaker, class.is_failure()) else { return };
        let mark = Mark { failed, slow: policy.slow.is_some_and(|slow| took >= slow) };
        if let (Some(endpoint), Some(ejection)) = (endpoint, self.ejection) {
            if endpoint.standing.has(Objection::Ejected) {
                return;
            }
            if counts_in_a_row(class)
                && !pass.is_probe()
                && !ejection.shadow
                && endpoint.ejection.is_suspect(ejection)
                && self.may_go(endpoint, ejection)
            {
                endpoint.held.fetch_add(1, Relaxed);
                return;
            }
            self.release(endpoint, policy, now);
            if mark.is_bad() && !pass.is_probe() {
                endpoint.counted.record(now, policy.window, mark, 1);
            }
        }
        self.tell(pass.record(mark, policy, now), now);
    }

    /// Failures that were held count after all.
    fn release(&self, endpoint: &EndpointState, policy: &CircuitBreaker, now: Moment) {
        if endpoint.held.load(Relaxed) == 0 {
            return;
        }
        let failed = Mark { failed: true, slow: false };
        let held = endpoint.held.swap(0, Relaxed);
        endpoint.counted.record(now, policy.window, failed, held);
        self.tell(self.upstream.breaker.count(failed, held, policy, now), now);
    }

    /// Leaves an endpoint out, if it may be. Only one worker decides at a time; whoever comes second asks again with the
    /// next failure.
    fn eject(&self, endpoint: &EndpointState, policy: &Ejection, cause: Cause, now: Moment) {
        if self.upstream.ejecting.swap(true, Acquire) {
            return;
        }
        if !endpoint.is_out() && self.may_go(endpoint, policy) {
            let span = endpoint.ejection.eject(cause, policy, now);
            let objection = if policy.shadow { Objection::Shadowed } else { Objection::Ejected };
            self.upstream.raise(endpoint, objection);
            self.upstream.ejections.count(cause);
            endpoint.held.store(0, Relaxed);
            if !policy.shadow {
                self.upstream.breaker.take_out(&endpoint.counted);
            }
            tracing::warn!(
                upstream = &*self.upstream.name,
                endpoint = &*endpoint.label,
                cause = cause.as_str(),
                seconds = span.as_secs_f64(),
                shadow = policy.shadow,
                "an endpoint is ejected"
            );
        }
        self.upstream.ejecting.store(false, Release);
    }

    /// True where the others do without it.
    fn may_go(&self, endpoint: &EndpointState, policy: &Ejection) -> bool {
        let set = self.endpoints.load();
        let (size, out) = set
            .members
            .iter()
            .filter(|member| member.weight > 0)
            .fold((0, 0), |(size, out), member| (size + 1, out + usize::from(member.state.is_out())));
        // Who is of a higher priority stands ready for just that.
        let own = set.members.iter().find(|member| member.state.id == endpoint.id).map(|member| member.priority);
        let stands_in = |member: &Member| {
            member.weight > 0 && member.state.is_available() && own.is_some_and(|own| member.priority > own)
        };
        may_eject(policy, size, out) || policy.max_ratio > 0.0 && set.members.iter().any(stands_in)
    }

    /// What comes with time and not with requests: endpoints return, outliers are found. Called several times a second by
    /// the control side.
    pub(crate) fn tend(&self, now: Moment) {
        let set = self.endpoints.load();
        for member in &set.members {
            self.let_return(&member.state, now);
        }
        if let Some(policy) = self.ejection
            && let Some(deviations) = policy.deviations
            && now.since(self.upstream.compared()) >= policy.window
        {
            self.upstream.set_compared(now);
            self.compare(&set, policy, deviations, now);
        }
    }

    fn let_return(&self, endpoint: &EndpointState, now: Moment) {
        let shadow = self.ejection.is_some_and(|policy| policy.shadow);
        let over = now >= endpoint.ejection.until();
        // What is switched off, or only counts from now on, lets go of all.
        if (over || self.ejection.is_none() || shadow) && self.upstream.drop(endpoint, Objection::Ejected) {
            if let Some(over) = self.slow_return {
                endpoint.warm_up(over, now);
            }
            tracing::info!(
                upstream = &*self.upstream.name,
                endpoint = &*endpoint.label,
                "an endpoint is back from its ejection"
            );
        }
        if over || !shadow {
            self.upstream.drop(endpoint, Objection::Shadowed);
        }
    }

    fn compare(&self, set: &EndpointSet, policy: &Ejection, deviations: f64, now: Moment) {
        let members: Vec<&Arc<EndpointState>> =
            set.members.iter().map(|member| &member.state).filter(|state| !state.is_out()).collect();
        let counts: Vec<_> = members.iter().map(|state| state.ejection.recent(policy, now)).collect();
        for position in outliers(&counts, policy.min_requests, deviations) {
            self.eject(members[position], policy, Cause::SuccessRate, now);
        }
    }

    fn tell(&self, phase: Option<Phase>, now: Moment) {
        let upstream = &*self.upstream.name;
        let shadow = self.breaker.is_some_and(|policy| policy.shadow);
        match phase {
            None => {}
            Some(Phase::Open) => {
                let seconds = self.upstream.breaker.wait(now).as_secs_f64();
                tracing::warn!(upstream, seconds, shadow, "the circuit breaker is open");
            }
            Some(phase) => tracing::info!(upstream, shadow, "the circuit breaker is {}", phase.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::endpoints::Discovered;
    use super::*;
    use crate::config::builtin;
    use crate::config::model::{EndpointAddress, OnEmpty, UpstreamLimits};

    struct Pool {
        upstream: Arc<UpstreamState>,
        endpoints: Endpoints,
        ejection: Option<Ejection>,
        breaker: Option<CircuitBreaker>,
    }

    impl Pool {
        fn new(size: u16) -> Self {
            let limits = UpstreamLimits { connections: 1, requests: 1, waiting: 1, retries: 1 };
            let upstream = Arc::new(UpstreamState::new("a", limits));
            let endpoints = Endpoints::awaited(upstream.clone(), OnEmpty::Drop);
            let address = |port| EndpointAddress::Tcp(([127, 0, 0, 1], port).into());
            let discovered = (1..=size).map(|port| Discovered {
                address: address(port),
                weight: 1,
                priority: 0,
                zone: None,
                protocol: None,
            });
            endpoints.publish(discovered.collect(), Instant::now());
            Pool { upstream, endpoints, ejection: Some(builtin::EJECTION), breaker: Some(builtin::circuit_breaker()) }
        }

        fn judge(&self) -> Judge<'_> {
            Judge {
                upstream: &self.upstream,
                endpoints: &self.endpoints,
                ejection: self.ejection.as_ref(),
                breaker: self.breaker.as_ref(),
                slow_return: Some(builtin::SLOW_RETURN),
            }
        }

        fn endpoint(&self, position: usize) -> Arc<EndpointState> {
            self.endpoints.load().members[position].state.clone()
        }

        /// A request without retries. False where it was refused.
        fn request(&self, position: usize, class: Class, now: Moment) -> bool {
            let endpoint = self.endpoint(position);
            let Ok(pass) = self.judge().admit(|| now) else { return false };
            self.judge().attempt_ended(&endpoint, class, Duration::from_millis(1), now);
            if let Some(pass) = pass {
                self.judge().request_ended(pass, Some(&endpoint), class, Duration::from_millis(1), now);
            }
            true
        }

        fn out(&self) -> Vec<usize> {
            (0..self.endpoints.load().members.len()).filter(|position| self.endpoint(*position).is_out()).collect()
        }
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::from_micros(1 + milliseconds * 1_000)
    }

    #[test]
    fn a_dead_endpoint_of_two_is_ejected_and_the_breaker_stays_closed() {
        let mut pool = Pool::new(2);
        // As nervous as a breaker can be.
        pool.breaker = Some(CircuitBreaker { min_requests: 1, failure_ratio: 0.01, ..builtin::circuit_breaker() });
        for turn in 0..5 {
            assert!(pool.request(0, Class::Success, at(turn)));
            assert!(pool.request(1, Class::ConnectFailure, at(turn)));
        }
        assert_eq!(pool.out(), [1]);
        assert!(pool.request(1, Class::Reset, at(6)), "what was under way when it was ejected");
        assert_eq!(pool.upstream.breaker.phase(), Phase::Closed);
        assert_eq!(pool.upstream.breaker.recent(pool.breaker.as_ref().unwrap(), at(6)).failed, 0);
    }

    #[test]
    fn an_upstream_that_is_dead_as_a_whole_opens_the_breaker() {
        let pool = Pool::new(2);
        let refused = (0..100u64).find(|turn| !pool.request((turn % 2) as usize, Class::ConnectFailure, at(*turn)));
        assert!(refused.is_some_and(|turn| turn <= 60), "{refused:?}");
        assert_eq!(pool.out().len(), 1, "one always stays");
    }

    /// With an endpoint that cannot be ejected, ejection is as good as off: the breaker opens when its policy says so.
    #[test]
    fn where_nobody_may_be_ejected_everything_counts_from_the_first() {
        let breaker = CircuitBreaker { min_requests: 3, failure_ratio: 0.5, ..builtin::circuit_breaker() };
        for (size, ejection) in
            [(1, Some(builtin::EJECTION)), (2, Some(Ejection { max_ratio: 0.0, ..builtin::EJECTION })), (1, None)]
        {
            let mut pool = Pool::new(size);
            (pool.ejection, pool.breaker) = (ejection, Some(breaker.clone()));
            let let_through = (0..10).take_while(|_| pool.request(0, Class::Reset, at(0))).count();
            assert_eq!(let_through, 3, "{size}");
        }
    }

    #[test]
    fn failures_that_lead_to_nothing_count_after_all() {
        let pool = Pool::new(2);
        for class in [Class::Timeout, Class::Timeout, Class::Success] {
            pool.request(0, class, at(0));
        }
        let counts = pool.upstream.breaker.recent(pool.breaker.as_ref().unwrap(), at(0));
        assert_eq!((counts.total, counts.failed), (3, 2));
    }

    #[test]
    fn what_was_counted_of_one_with_many_500s_is_taken_out_when_it_goes() {
        let mut pool = Pool::new(2);
        pool.ejection = Some(Ejection { failure_ratio: Some(0.8), min_requests: 8, ..builtin::EJECTION });
        for turn in 0..8 {
            assert!(pool.request(0, Class::Success, at(turn)));
            assert!(pool.request(1, Class::ServerError, at(turn)));
        }
        assert_eq!(pool.out(), [1]);
        let counts = pool.upstream.breaker.recent(pool.breaker.as_ref().unwrap(), at(8));
        assert_eq!((counts.total, counts.failed), (8, 0));
    }

    #[test]
    fn it_comes_back_with_a_small_share() {
        let pool = Pool::new(2);
        for _ in 0..5 {
            pool.request(1, Class::Reset, at(0));
        }
        pool.judge().tend(at(29_999));
        assert_eq!(pool.out(), [1]);
        pool.judge().tend(at(30_000));
        assert_eq!(pool.out(), [0; 0]);
        assert!(pool.endpoint(1).standing.has(Objection::Warming));
        assert!(pool.endpoint(1).warmth(at(30_000)) <= 0.1);
    }

    #[test]
    fn switching_it_off_lets_all_return() {
        let mut pool = Pool::new(2);
        for _ in 0..5 {
            pool.request(1, Class::Reset, at(0));
        }
        pool.ejection = None;
        pool.judge().tend(at(1));
        assert_eq!(pool.out(), [0; 0]);
    }

    /// Those that got none are counted by whoever gave them up.
    #[test]
    fn an_answer_that_is_a_failure_counts_as_one() {
        let pool = Pool::new(2);
        for class in [Class::Success, Class::ServerError, Class::GatewayError, Class::Refused, Class::Nothing] {
            pool.request(0, class, at(0));
        }
        assert_eq!([0, 1].map(|position| pool.endpoint(position).failures()), [2, 0]);
    }

    #[test]
    fn the_cause_of_the_last_ejection_is_known() {
        let mut pool = Pool::new(2);
        pool.ejection = Some(Ejection { failure_ratio: Some(0.5), min_requests: 2, ..builtin::EJECTION });
        assert_eq!(pool.endpoint(1).ejection.cause(), None);
        for _ in 0..2 {
            pool.request(1, Class::ServerError, at(0));
        }
        assert_eq!(pool.out(), [1]);
        assert_eq!(pool.endpoint(1).ejection.cause(), Some(Cause::FailureRatio));
    }

    #[test]
    fn in_the_shadow_nobody_is_left_out() {
        let mut pool = Pool::new(2);
        pool.ejection = Some(Ejection { shadow: true, ..builtin::EJECTION });
        for _ in 0..20 {
            pool.request(1, Class::Reset, at(0));
        }
        assert_eq!(pool.upstream.ejections.of(Cause::Consecutive), 1);
        assert!(!pool.endpoint(1).standing.has(Objection::Ejected));
    }

    #[test]
    fn the_worst_of_many_is_found_with_time() {
        let mut pool = Pool::new(6);
        pool.ejection = Some(Ejection { deviations: Some(1.9), consecutive: None, ..builtin::EJECTION });
        pool.breaker = None;
        for turn in 0..40 {
            for position in 0..6 {
                let class = if position == 3 && turn % 2 == 0 { Class::ServerError } else { Class::Success };
                pool.request(position, class, at(11_000));
            }
        }
        assert_eq!(pool.out(), [0; 0]);
        pool.judge().tend(at(12_000));
        assert_eq!(pool.out(), [3]);
    }

    proptest! {
        /// Whatever happens, at most the share is out, one stays, and who is out comes back in time.
        #[test]
        fn never_more_than_the_share_is_out(
            size in 1u16..8, max_ratio in 0.0f64..=1.0,
            steps in prop::collection::vec((0usize..8, any::<bool>(), 0u64..2_000), 1..300),
        ) {
            let mut pool = Pool::new(size);
            pool.ejection = Some(Ejection { max_ratio, consecutive: Some(2), ..builtin::EJECTION });
            let most = ((f64::from(size) * max_ratio) as usize).max(usize::from(max_ratio > 0.0)).min(usize::from(size) - 1);
            let mut now = 0;
            for (position, failed, pause) in steps {
                now += pause;
                let class = if failed { Class::Reset } else { Class::Success };
                pool.request(position % usize::from(size), class, at(now));
                pool.judge().tend(at(now));
                prop_assert!(pool.out().len() <= most, "{:?}", pool.out());
            }
            pool.judge().tend(at(now + 300_000));
            prop_assert!(pool.out().is_empty());
        }
    }
}
