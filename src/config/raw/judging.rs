//! `ejection:` and `circuit_breaker:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::Respond;
use crate::config::given::Given;
use crate::config::scalar::OrNone;
use crate::config::units::{Deviations, Flag, Number, Period, Ratio, Text};

/// What is not done at all.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Off {
    /// Not at all.
    None,
}

/// When an endpoint is left out for a while; `none` for never.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "EjectionForm", untagged)]
pub(crate) enum EjectionForm {
    /// Never.
    #[serde(rename = "scalar")]
    Off(Off),
    /// By these rules.
    #[serde(rename = "mapping")]
    On(Box<Ejection>),
}

/// When an endpoint is left out for a while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ejection {
    /// After so many failures in a row: no connection, a reset, no answer in time, 502, 503, 504. Default 5.
    pub(crate) consecutive: Given<OrNone<Number<1, 1_000_000>>>,
    /// At this share of failures of any kind, 500 too. Default none.
    pub(crate) failure_ratio: Given<OrNone<Ratio>>,
    /// So many standard deviations below the mean success rate of at least five endpoints. Default none.
    pub(crate) deviations: Given<OrNone<Deviations>>,
    /// Attempts within `window` below which ratio and deviations mean nothing. Default 20.
    pub(crate) min_requests: Given<Number<1, 1_000_000>>,
    /// What ratio and deviations are taken over. Default 10s.
    pub(crate) window: Given<Period>,
    /// The first ejection's time; each further one is longer by as much. Default 30s.
    #[serde(rename = "for")]
    pub(crate) base: Given<Period>,
    /// The longest. Default 5m.
    pub(crate) max_for: Given<Period>,
    /// At most this share of the endpoints is out at a time; one always stays. Default 0.5.
    pub(crate) max_ratio: Given<Ratio>,
    /// With less than this share of the endpoints left, ejections are disregarded. Default 0.5.
    pub(crate) panic_ratio: Given<Ratio>,
    /// Count, and leave nobody out. Default false.
    pub(crate) shadow: Given<Flag>,
}

/// When an upstream gets no requests for a while; `none` for never.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "CircuitBreakerForm", untagged)]
pub(crate) enum CircuitBreakerForm {
    /// Never.
    #[serde(rename = "scalar")]
    Off(Off),
    /// By these rules.
    #[serde(rename = "mapping")]
    On(Box<CircuitBreaker>),
}

/// When an upstream gets no requests for a while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CircuitBreaker {
    /// It opens at this share of failed requests, after their retries. Default 0.5.
    pub(crate) failure_ratio: Given<Ratio>,
    /// A request whose answer takes longer to begin is slow. Default none.
    pub(crate) slow: Given<OrNone<Period>>,
    /// It opens at this share of slow requests. Default 0.8.
    pub(crate) slow_ratio: Given<Ratio>,
    /// Requests within `window` below which ratios mean nothing. Default 20.
    pub(crate) min_requests: Given<Number<1, 1_000_000>>,
    /// What ratios are taken over. Default 10s.
    pub(crate) window: Given<Period>,
    /// How long it is open at first; twice as long each time that a probe fails. Default 5s.
    pub(crate) open_for: Given<Period>,
    /// The longest. Default 1m.
    pub(crate) max_open_for: Given<Period>,
    /// Requests let through to see whether the upstream is well again; it is when all of them are. Default 3.
    pub(crate) probes: Given<Number<1, 100>>,
    /// Where a request goes that is refused: the name of an upstream, or a fixed answer. Default none: 503.
    pub(crate) fallback: Given<Fallback>,
    /// Count, and refuse nothing. Default false.
    pub(crate) shadow: Given<Flag>,
}

/// Where a request goes that an open breaker refuses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Fallback", untagged)]
pub(crate) enum Fallback {
    /// To this upstream: a name, or an address.
    #[serde(rename = "scalar")]
    Upstream(Text),
    /// Nowhere: it gets a fixed answer.
    #[serde(rename = "mapping")]
    Respond(FallbackRespond),
}

/// A fixed answer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["respond"]))]
pub(crate) struct FallbackRespond {
    /// Answer with this.
    pub(crate) respond: Given<Respond>,
}
