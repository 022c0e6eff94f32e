//! What the file says, in its own words: short forms, nothing resolved, nothing defaulted. `validate` makes the model
//! of it, `schema` the JSON Schema, `effective` the long form.
//!
//! Every key is a [`Given`], so that a mistake in one hides none in another. Where a value has several forms, an enum
//! with the serde name `$by_form` has a variant for each. Doc comments are the schema's descriptions.

pub(crate) mod balancing;
pub(crate) mod consul;
pub(crate) mod discover;
pub(crate) mod dns;
pub(crate) mod health;
pub(crate) mod judging;
pub(crate) mod listener;
pub(crate) mod otlp;
pub(crate) mod overload;
pub(crate) mod retries;
pub(crate) mod route;
pub(crate) mod telemetry;
pub(crate) mod tls;
pub(crate) mod traces;
pub(crate) mod upstream;

use schemars::JsonSchema;
use serde::Deserialize;

use super::given::{Given, Named};
use super::model;
use super::scalar::OrNone;
use super::units::{Name, Number, Period, Ratio, Seconds, Text};
use consul::{Consul, Register};
use dns::Dns;
use listener::Listener;
use otlp::MetricsExportForm;
use telemetry::Telemetry;
use upstream::{Defaults, Upstream};

/// The configuration of one Outrigger proxy.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["listeners"]))]
pub(crate) struct Configuration {
    /// Of the file's format: 1. Within a version keys are only added.
    pub(crate) version: Given<Number<1, 1>>,
    /// Who this service is, in traces and registries.
    pub(crate) service: Given<Name>,
    /// Where this proxy stands: what upstreams with `prefer_zone` prefer. Default `none`.
    pub(crate) zone: Given<OrNone<Text>>,
    /// How many threads carry requests: a number, or `auto` (the default), which follows the cgroup's CPU limit.
    pub(crate) workers: Given<Workers>,
    /// Where everything about the proxy can be seen and changed.
    pub(crate) admin: Given<Admin>,
    /// The address for scrapes and probes (`/metrics`, `/livez`, `/readyz`, `/probe/…`). Off unless written.
    pub(crate) metrics: Given<MetricsForm>,
    /// How Consul's agents are reached.
    pub(crate) consul: Given<Consul>,
    /// This proxy as a service in Consul: registered once it is ready, taken out when a drain begins. Off unless written.
    pub(crate) register: Given<Register>,
    /// How names are looked up in DNS.
    pub(crate) dns: Given<Dns>,
    /// Readiness waits this long for the first answer of each registry that endpoints come from. Default 5s.
    pub(crate) wait_for_discovery: Given<Period>,
    /// How the proxy ends.
    pub(crate) drain: Given<Drain>,
    /// Watch a swap to this configuration, and go back by itself where too many requests fail. Off unless written.
    pub(crate) probation: Given<ProbationForm>,
    /// What is written about requests and about the proxy itself.
    pub(crate) telemetry: Given<Telemetry>,
    /// The addresses that the proxy listens on, by name.
    pub(crate) listeners: Given<Named<Listener>>,
    /// Every upstream starts from these.
    pub(crate) defaults: Given<Defaults>,
    /// Where requests can go, by name.
    pub(crate) upstreams: Given<Named<Upstream>>,
}

/// `auto`, or a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workers(pub(crate) model::Workers);

/// Where everything about the proxy can be seen and changed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// An IP address and port, or `none`. Default `127.0.0.1:9901`. One that is not loopback needs `token_file`.
    pub(crate) address: Given<OrNone<AdminAddress>>,
    /// A file that holds the bearer token.
    pub(crate) token_file: Given<Text>,
    /// The path of a Unix socket, mode 0600, that needs no token.
    pub(crate) socket: Given<Text>,
}

impl Admin {
    pub(crate) fn can_be_read(&self) -> bool {
        let Admin { address, token_file, socket } = self;
        !matches!(address, Given::Invalid(_))
            && ![token_file, socket].iter().any(|key| matches!(key, Given::Invalid(_)))
    }
}

/// An IP address and a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminAddress(pub(crate) std::net::SocketAddr);

/// The address for scrapes and probes, alone or as a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "MetricsForm", untagged)]
pub(crate) enum MetricsForm {
    /// Short for `{ address: … }`.
    #[serde(rename = "scalar")]
    Address(OrNone<model::BindAddress>),
    /// The long form.
    #[serde(rename = "mapping")]
    Long(Box<Metrics>),
}

/// The address for scrapes and probes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// Where `/metrics`, `/livez`, `/readyz` and `/probe/…` are served; `none` for nowhere.
    pub(crate) address: Given<OrNone<model::BindAddress>>,
    /// What is asked of the app when `/probe/NAME` is: names such as `app/readiness` and URLs (`http`, `tcp`).
    pub(crate) probes: Given<Named<model::ProbeTarget>>,
    /// Upper bounds of the buckets of all histograms, in seconds as in `le`, from the smallest up; at most 20. Default
    /// `[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 5, 60]`.
    pub(crate) buckets: Given<Vec<Given<Seconds>>>,
    /// A collector of OpenTelemetry's that all metrics are sent to as well. Off unless written, here or as
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, or with `OTEL_METRICS_EXPORTER=otlp`.
    pub(crate) otlp: Given<MetricsExportForm>,
}

/// How the proxy ends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    /// Unready, but still accepting. Default 5s.
    pub(crate) delay: Given<Period>,
    /// Then at most this long for requests in flight. Default 20s.
    pub(crate) timeout: Given<Period>,
}

/// How a swap is watched; `none` for not at all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "ProbationForm", untagged)]
pub(crate) enum ProbationForm {
    /// Not at all.
    #[serde(rename = "scalar")]
    Off(judging::Off),
    /// By these rules.
    #[serde(rename = "mapping")]
    On(Probation),
}

/// How a swap is watched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Probation {
    /// For how long after the swap. Default 30s.
    #[serde(rename = "for")]
    pub(crate) lasts: Given<Period>,
    /// More than this share of failing requests is too much. Default 0.05.
    pub(crate) max_error_ratio: Given<Ratio>,
    /// Requests below which nothing is judged. Default 50.
    pub(crate) min_requests: Given<Number<1, 1_000_000>>,
}

mod words {
    //! Scalars of this file.

    use std::net::SocketAddr;
    use std::num::NonZeroUsize;

    use schemars::{Schema, json_schema};

    use super::{AdminAddress, Workers};
    use crate::config::model::{self, BindAddress};
    use crate::config::scalar::{Invalid, Scalar, VARIABLE_PATTERN, scalar};
    use crate::config::text::quote;
    use crate::config::units::Number;

    /// Threads beyond this only cost memory.
    const MOST_WORKERS: u32 = 1024;

    impl Scalar for Workers {
        const EXPECTED: &'static str = "`auto` or a number";
        const SCHEMA_NAME: &'static str = "Workers";

        fn parse(text: &str) -> Result<Self, Invalid> {
            if text == "auto" {
                return Ok(Workers(model::Workers::Auto));
            }
            let hint = || format!("it can be `auto` or 1 to {MOST_WORKERS}");
            let number = Number::<1, MOST_WORKERS>::parse(text).map_err(|invalid| invalid.hint(hint()))?;
            match usize::try_from(number.0).ok().and_then(NonZeroUsize::new) {
                Some(count) => Ok(Workers(model::Workers::Count(count))),
                None => Err(Invalid::new(format!("{} is out of range", quote(text))).hint(hint())),
            }
        }

        fn schema() -> Schema {
            let pattern = format!("^(auto|[0-9]+)$|{VARIABLE_PATTERN}");
            json_schema!({ "type": ["string", "integer"], "pattern": pattern, "minimum": 1, "maximum": MOST_WORKERS })
        }
    }
    scalar!(Workers);

    impl Scalar for AdminAddress {
        const EXPECTED: &'static str = "an IP address and a port such as `127.0.0.1:9901`";
        const SCHEMA_NAME: &'static str = "AdminAddress";

        fn parse(text: &str) -> Result<Self, Invalid> {
            match BindAddress::parse(text)? {
                BindAddress::Tcp(address) => Ok(AdminAddress(address)),
                BindAddress::Unix(path) => Err(Invalid::new("a Unix socket is not an address here")
                    .hint(format!("write `socket: {}`", path.display()))),
                BindAddress::AllInterfaces(port) => {
                    Err(Invalid::new(format!("{} does not say which interface", quote(text))).hint(format!(
                        "write {}, or {} with a `token_file`",
                        quote(&SocketAddr::from(([127, 0, 0, 1], port)).to_string()),
                        quote(&format!("0.0.0.0:{port}"))
                    )))
                }
            }
        }

        fn schema() -> Schema {
            json_schema!({ "type": "string" })
        }
    }
    scalar!(AdminAddress);
}
