//! `rate_limit:`, `concurrency:`, `mirror:` and `fault:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::ValueForm;
use crate::config::given::{Given, Pairs, Spanned};
use crate::config::units::{Flag, Number, Period, Ratio, Text};

/// So many requests a second; beyond, 429 `rate_limited`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["per_second"]))]
pub(crate) struct RateLimit {
    /// Requests a second, all workers together.
    pub(crate) per_second: Given<Number<1, 1_000_000>>,
    /// As many can come at once. Default: as many as in a second.
    pub(crate) burst: Given<Number<1, 1_000_000>>,
    /// What has a limit of its own: `client` (its address) or `header:NAME`. Without it, all requests share one.
    pub(crate) key: Given<Text>,
    /// How many clients are told apart; those longest quiet are forgotten first. Default 10000.
    pub(crate) keys: Given<Number<1, 1_000_000>>,
    /// Count what would be refused, and refuse nothing. Default false.
    pub(crate) shadow: Given<Flag>,
}

/// How many requests may be in flight: `adaptive`, or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "Concurrency", untagged)]
pub(crate) enum Concurrency {
    /// As many as latency allows.
    #[serde(rename = "scalar")]
    Word(Spanned<Adaptive>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(ConcurrencyLong),
}

/// As many as latency allows.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Adaptive {
    Adaptive,
}

/// How many requests may be in flight; beyond, 503 `concurrency_limited`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ConcurrencyLong", extend("required" = ["max"]))]
pub(crate) struct ConcurrencyLong {
    /// A number, or `adaptive`.
    pub(crate) max: Given<Most>,
    /// Count what would be refused, and refuse nothing. Default false.
    pub(crate) shadow: Given<Flag>,
}

/// A number; `None` for `adaptive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most(pub(crate) Option<u32>);

/// Copies of requests go to another upstream, and nobody waits for their answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"]))]
pub(crate) struct Mirror {
    /// Where: a name, or an address.
    pub(crate) upstream: Given<Text>,
    /// This share of the requests. Default 1.
    pub(crate) ratio: Given<Ratio>,
}

/// Trouble on purpose: `delay`, `abort` or both.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct Fault {
    /// The request waits so long.
    pub(crate) delay: Given<Period>,
    /// Then it is answered with this status, 400 to 599.
    pub(crate) abort: Given<Number<400, 599>>,
    /// This share of the requests. Default 1.
    pub(crate) ratio: Given<Ratio>,
    /// Only requests with all of these headers.
    pub(crate) headers: Given<Pairs<ValueForm>>,
}

mod words {
    //! Scalars of this file.

    use schemars::{Schema, json_schema};

    use super::Most;
    use crate::config::scalar::{Invalid, Scalar, VARIABLE_PATTERN, scalar};
    use crate::config::units::Number;

    impl Scalar for Most {
        const EXPECTED: &'static str = "a number or `adaptive`";

        fn parse(text: &str) -> Result<Self, Invalid> {
            match text {
                "adaptive" => Ok(Most(None)),
                _ => Number::<1, 1_000_000>::parse(text).map(|number| Most(Some(number.0))),
            }
        }

        fn schema() -> Schema {
            json_schema!({
                "type": ["integer", "string"],
                "minimum": 1,
                "maximum": 1_000_000,
                "pattern": format!("^([0-9]+|adaptive)$|{VARIABLE_PATTERN}")
            })
        }
    }
    scalar!(Most);
}
