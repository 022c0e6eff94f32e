//! How requests ended, by upstream: for who judges a configuration by it.

use std::collections::BTreeMap;

use super::names::UpstreamId;
use super::shard::ShardSnapshot;

/// Requests of one upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// That ended.
    pub requests: u64,
    /// Of these, those that failed for the proxy's or an endpoint's reason: a status of 500 or more, a gRPC status that
    /// stands for one, or a reason that is not the client's.
    pub failed: u64,
}

/// By upstream; `None` where none was asked.
pub type Tallies = BTreeMap<Option<UpstreamId>, Tally>;

/// Adds the workers up. One that is late counts as standing still.
#[derive(Debug, Default)]
pub struct Tallying(BTreeMap<usize, Tallies>);

impl Tallying {
    /// Everything since the proxy's start.
    pub fn look(&mut self, shards: impl IntoIterator<Item = ShardSnapshot>) -> Tallies {
        for shard in shards {
            self.0.insert(shard.worker, tally(&shard));
        }
        let mut sum = Tallies::new();
        for (upstream, tally) in self.0.values().flatten() {
            let all = sum.entry(*upstream).or_default();
            all.requests += tally.requests;
            all.failed += tally.failed;
        }
        sum
    }
}

fn tally(shard: &ShardSnapshot) -> Tallies {
    let mut tallies = Tallies::new();
    // What was too much for a series of its own is of nobody.
    for (key, count) in shard.requests.iter().filter(|(key, _)| !key.is_other()) {
        let tally = tallies.entry(key.upstream()).or_default();
        tally.requests += count;
        if key.is_failure() {
            tally.failed += count;
        }
    }
    tallies
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Names;
    use super::super::histogram::Bounds;
    use super::super::key::{MethodLabel, RequestKey};
    use super::super::shard::Shard;
    use super::*;
    use crate::error::Reason;

    #[test]
    fn what_the_client_did_is_no_failure() {
        let names = Names::new();
        let (listener, upstream) = (names.listener("inbound"), names.upstream("app"));
        let (route, method) = (names.route(listener, "main"), MethodLabel::UNKNOWN);
        let shards = [0, 1].map(|worker| Shard::new(worker, Bounds::default()));
        let count = |worker: usize, upstream, code, grpc, reason| {
            let key = RequestKey { route, upstream, method, code, grpc, reason };
            shards[worker].request(&key, Duration::ZERO, (0, 0), None);
        };
        for (code, grpc, reason) in [
            (200, None, None),
            (404, None, None),
            (499, None, Some(Reason::ClientCancelled)),
            (503, None, Some(Reason::FaultInjected)),
            (200, Some(5), None),
        ] {
            count(0, Some(upstream), code, grpc, reason);
        }
        count(1, Some(upstream), 500, None, None);
        count(1, Some(upstream), 503, None, Some(Reason::ConnectFailure));
        count(1, Some(upstream), 200, Some(14), None);
        count(1, None, 404, None, Some(Reason::NoRoute));
        let mut tallying = Tallying::default();
        let expected = Tallies::from([
            (None, Tally { requests: 1, failed: 1 }),
            (Some(upstream), Tally { requests: 8, failed: 3 }),
        ]);
        assert_eq!(tallying.look(shards.iter().map(|shard| shard.snapshot())), expected);
        assert_eq!(tallying.look([]), expected, "silent workers stand still");
    }
}
