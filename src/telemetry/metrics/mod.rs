//! Metrics: cells of each worker's own, summed when someone asks.
//!
//! A request carries numbers, not names ([`Names`] gives them out when a configuration is compiled), and adds to its
//! worker's [`Shard`]. A scrape asks every worker by message for a [`ShardSnapshot`]; the [`Exporter`] sums them and
//! writes the text through a `prometheus` registry. Counters outlive configurations.
//!
//! To add a metric: its line in `family.rs`, what fills it (`cells.rs` for a thing of a listener or upstream), and its
//! row in the table below; tests hold all three together.
//!
#![doc = include_str!("metrics.md")]

mod cells;
mod exemplar;
mod exporter;
mod family;
mod histogram;
mod key;
mod live;
mod merge;
mod names;
pub mod open_metrics;
mod process;
mod push;
mod shard;
mod tally;

pub use cells::{ListenerCounter, ListenerGauge, UpstreamCounter};
pub use exemplar::Exemplar;
pub use exporter::{
    BreakerFacts, CONTENT_TYPE, CertificateEnd, ConcurrencyFacts, ConfigFacts, DiscoveryFacts, EndpointCount, Exporter,
    Gathered, Scrape, SpanCounts, UpstreamFacts,
};
pub use family::{FAMILIES, Family, Kind};
pub use histogram::Bounds;
pub use key::{MethodLabel, RequestKey};
pub use live::{Flow, Interval, ListenerFlow, Live, Percentiles, RouteFlow, UpstreamFlow};
pub use names::{ListenerId, Names, RouteId, UpstreamId};
pub use push::Push;
pub use shard::{Held, Shard, ShardSnapshot};
pub use tally::{Tallies, Tally, Tallying};

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that users read and the one that the program exports are the same.
    #[test]
    fn the_documentation_names_every_family() {
        let mut expected = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
        for Family { name, kind, labels, help } in FAMILIES {
            let kind = format!("{kind:?}").to_lowercase();
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            expected += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
        }
        let written = include_str!("metrics.md");
        assert!(written == expected, "src/telemetry/metrics/metrics.md should be\n{expected}");
    }
}
