//! What this view remembers of the events: four minutes of the whole, the last minute of each row.

use std::collections::{BTreeMap, VecDeque};

use super::event::{Event, Flow, Times};

/// Events of the whole, and seconds: as many as a wide terminal has columns.
const WHOLE: usize = 240;
/// Events of each row, and seconds: what "the last minute" is.
pub(super) const MINUTE: usize = 60;
/// Rates are means of so many: those of single seconds jump.
const MEAN: usize = 5;

/// The latest event, and what led to it.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) last: Option<Event>,
    pub(super) total: Recent,
    routes: BTreeMap<String, Recent>,
    upstreams: BTreeMap<String, Recent>,
    endpoints: BTreeMap<String, Seen>,
    /// The proxy behind the address is another one than before.
    pub(super) restarted: bool,
    /// Success, times and errors are those since the proxy's start.
    pub(super) since_start: bool,
}

/// The last intervals of one row.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    intervals: VecDeque<Interval>,
    /// Of the last interval that had any.
    pub(super) times: Option<Times>,
    /// What was counted since the proxy's start, where that is to be shown.
    since_start: Option<Interval>,
}

#[derive(Debug, Clone, Default)]
struct Interval {
    /// Its end.
    at: f64,
    seconds: f64,
    count: u64,
    errors: u64,
    reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    requests: u64,
    failures: u64,
    recent: Recent,
}

impl History {
    /// One more event.
    pub(super) fn add(&mut self, event: Event) {
        let before = self.last.take();
        self.restarted = before.as_ref().is_some_and(|before| event.total.ever < before.total.ever);
        // The first event of a stream tells sums, and no rates.
        let elapsed = before.map(|before| event.time - before.time).filter(|_| event.seconds > 0.0 && !self.restarted);
        if event.seconds > 0.0 {
            self.total.add(event.time, event.seconds, &event.total, WHOLE);
        }
        let flows =
            event.routes.iter().map(|route| (key(&[&route.listener, &route.route, &route.upstream]), &route.flow));
        follow(&mut self.routes, flows, event.time, event.seconds);
        let flows = event.upstreams.iter().map(|upstream| (upstream.name.clone(), &upstream.flow));
        follow(&mut self.upstreams, flows, event.time, event.seconds);
        let mut endpoints = BTreeMap::new();
        for upstream in &event.upstreams {
            for endpoint in &upstream.endpoints {
                let key = key(&[&upstream.name, &endpoint.address]);
                let known = self.endpoints.remove(&key);
                let mut seen = known.clone().unwrap_or_default();
                if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0 && known.is_some()) {
                    if endpoint.requests < seen.requests {
                        // It was gone, and counts from nothing now that it is back.
                        (seen.requests, seen.failures) = (0, 0);
                    }
                    let count = endpoint.requests.saturating_sub(seen.requests);
                    let errors = endpoint.failures.saturating_sub(seen.failures);
                    seen.recent.add(event.time, elapsed, &Flow { count, errors, ..Flow::default() }, MINUTE);
                }
                (seen.requests, seen.failures) = (endpoint.requests, endpoint.failures);
                endpoints.insert(key, seen);
            }
        }
        self.endpoints = endpoints;
        self.last = Some(event);
    }

    /// Shows what was counted since the proxy's start, of which this event tells the sums.
    pub(super) fn show_sums(&mut self, first: &Event) {
        self.since_start = true;
        self.total.show_sums(&first.total);
        for route in &first.routes {
            let key = key(&[&route.listener, &route.route, &route.upstream]);
            self.routes.entry(key).or_default().show_sums(&route.flow);
        }
        for upstream in &first.upstreams {
            self.upstreams.entry(upstream.name.clone()).or_default().show_sums(&upstream.flow);
        }
        for seen in self.endpoints.values_mut() {
            let (count, errors) = (seen.requests, seen.failures);
            seen.recent.show_sums(&Flow { count, errors, ..Flow::default() });
        }
    }

    pub(super) fn route(&self, listener: &str, route: &str, upstream: &str) -> Option<&Recent> {
        self.routes.get(&key(&[listener, route, upstream]))
    }

    pub(super) fn upstream(&self, name: &str) -> Option<&Recent> {
        self.upstreams.get(name)
    }

    pub(super) fn endpoint(&self, upstream: &str, address: &str) -> Option<&Recent> {
        self.endpoints.get(&key(&[upstream, address])).map(|seen| &seen.recent)
    }
}

/// Names hold no line breaks.
fn key(parts: &[&str]) -> String {
    parts.join("\n")
}

/// Rows that are gone are forgotten.
fn follow<'f>(
    rows: &mut BTreeMap<String, Recent>,
    flows: impl Iterator<Item = (String, &'f Flow)>,
    at: f64,
    seconds: f64,
) {
    let mut before = std::mem::take(rows);
    for (key, flow) in flows {
        let mut recent = before.remove(&key).unwrap_or_default();
        if seconds > 0.0 {
            recent.add(at, seconds, flow, MINUTE);
        }
        rows.insert(key, recent);
    }
}

impl Recent {
    /// Keeps so many intervals and, where nothing was heard for some time, no older ones than so many seconds.
    fn add(&mut self, at: f64, seconds: f64, flow: &Flow, most: usize) {
        let Flow { count, errors, reasons, times, .. } = flow.clone();
        self.intervals.push_back(Interval { at, seconds, count, errors, reasons });
        let oldest = at - most as f64;
        while self.intervals.len() > most || self.intervals.front().is_some_and(|first| first.at <= oldest) {
            self.intervals.pop_front();
        }
        self.times = times.or(self.times.filter(|_| self.minute().map(|interval| interval.count).sum::<u64>() > 0));
    }

    fn show_sums(&mut self, sums: &Flow) {
        self.times = sums.times;
        self.since_start = Some(Interval {
            at: 0.0,
            seconds: 0.0,
            count: sums.count,
            errors: sums.errors,
            reasons: sums.reasons.clone(),
        });
    }

    fn minute(&self) -> impl Iterator<Item = &Interval> {
        let intervals = if self.since_start.is_none() { MINUTE } else { 0 };
        self.intervals.iter().rev().take(intervals).chain(&self.since_start)
    }

    /// A second, over the last few; `None` where there is no interval yet.
    pub(super) fn rate(&self) -> Option<f64> {
        let last = || self.intervals.iter().rev().take(MEAN);
        let seconds: f64 = last().map(|interval| interval.seconds).sum();
        (seconds > 0.0).then(|| last().map(|interval| interval.count).sum::<u64>() as f64 / seconds)
    }

    /// The share that was no error over the last minute; `None` where there was nothing.
    pub(super) fn success(&self) -> Option<f64> {
        let count: u64 = self.minute().map(|interval| interval.count).sum();
        (count > 0).then(|| 1.0 - self.errors() as f64 / count as f64)
    }

    /// Over the last minute.
    pub(super) fn errors(&self) -> u64 {
        self.minute().map(|interval| interval.errors).sum()
    }

    /// The most frequent reason of the last minute.
    pub(super) fn reason(&self) -> Option<String> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, count) in self.minute().flat_map(|interval| &interval.reasons) {
            *sums.entry(reason).or_default() += count;
        }
        sums.into_iter().max_by_key(|(_, count)| *count).map(|(reason, _)| reason.to_owned())
    }

    /// Rates of the last intervals with whether there were errors in them, oldest first.
    pub(super) fn rates(&self, most: usize) -> impl Iterator<Item = (f64, bool)> {
        let from = self.intervals.len().saturating_sub(most);
        self.intervals.iter().skip(from).map(|interval| (interval.count as f64 / interval.seconds, interval.errors > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::sample;
    use super::*;

    #[test]
    fn rates_are_means_and_success_is_of_the_last_minute() {
        let mut history = History::default();
        history.add(sample(0));
        assert_eq!(history.total.rate(), None, "the first event tells sums");
        for second in 1..=3 {
            history.add(sample(second));
        }
        let orders = history.route("outbound", "orders", "orders").unwrap();
        assert_eq!((orders.rate(), orders.success(), orders.errors()), (Some(20.0), Some(0.0), 60));
        assert_eq!(orders.reason().as_deref(), Some("connect_failure"));
        let endpoint = history.endpoint("orders", "10.0.0.9:8080").unwrap();
        assert_eq!((endpoint.rate(), endpoint.errors()), (Some(100.0), 300), "from the second event on");
        assert!(!history.restarted);
    }

    #[test]
    fn a_proxy_that_began_anew_is_noticed_and_counts_from_there() {
        let mut history = History::default();
        for second in [0, 1, 2, 0, 1] {
            history.add(sample(second));
            assert_eq!(history.restarted, second == 0 && history.total.rate().is_some());
        }
        assert_eq!(history.endpoint("orders", "10.0.0.9:8080").unwrap().rate(), Some(100.0));
    }

    #[test]
    fn what_was_before_a_long_silence_is_not_the_last_minute() {
        let mut history = History::default();
        for second in [0, 1, 2, 600] {
            history.add(sample(second));
        }
        let orders = history.route("outbound", "orders", "orders").unwrap();
        assert_eq!((orders.errors(), orders.rates(1_000).count(), history.total.rates(1_000).count()), (20, 1, 1));
    }

    #[test]
    fn an_endpoint_that_was_gone_counts_from_nothing() {
        let (mut history, mut back) = (History::default(), sample(2));
        history.add(sample(1));
        let endpoint = &mut back.upstreams[1].endpoints[0];
        (endpoint.requests, endpoint.failures) = (30, 10);
        history.add(back);
        let endpoint = history.endpoint("orders", "10.0.0.9:8080").unwrap();
        assert_eq!((endpoint.rate(), endpoint.errors()), (Some(30.0), 10));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_gone_is_forgotten() {
        let mut history = History::default();
        for second in 0..500 {
            history.add(sample(second));
        }
        assert_eq!(history.total.rates(1_000).count(), WHOLE);
        assert_eq!(history.route("outbound", "orders", "orders").unwrap().rates(1_000).count(), MINUTE);
        let mut event = sample(500);
        event.routes.clear();
        event.upstreams.clear();
        history.add(event);
        assert!(history.routes.is_empty() && history.upstreams.is_empty() && history.endpoints.is_empty());
    }
}
