//! `health:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::judging::Off;
use crate::config::given::Given;
use crate::config::units::{Flag, Number, Period, Text};

/// How endpoints are asked how they are; `none` for not at all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "$by_form")]
#[schemars(rename = "HealthForm", untagged)]
pub(crate) enum HealthForm {
    /// Not at all.
    #[serde(rename = "scalar")]
    Off(Off),
    /// So.
    #[serde(rename = "mapping")]
    On(Box<Health>),
}

/// How endpoints are asked how they are: one of `http`, `tcp` and `grpc`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    /// `GET` of this path; 2xx passes.
    pub(crate) http: Given<Text>,
    /// `true`: a connection comes about.
    pub(crate) tcp: Given<Flag>,
    /// The standard gRPC health check of this service, over HTTP/2; an empty name is the server as a whole.
    pub(crate) grpc: Given<Text>,
    /// The port that is asked, where it is not the endpoint's.
    pub(crate) port: Given<Number<1, 65_535>>,
    /// From one check's beginning to the next one's, give or take a tenth. Default 5s.
    pub(crate) every: Given<Period>,
    /// After this a check has failed. Default 1s.
    pub(crate) timeout: Given<Period>,
    /// Checks passed in a row, for one that was down to be up. Default 2.
    pub(crate) up: Given<Number<1, 100>>,
    /// Checks failed in a row, for one that was up to be down. Default 3.
    pub(crate) down: Given<Number<1, 100>>,
    /// What an endpoint is until its first check has ended. Default `up`.
    pub(crate) initial: Given<Initial>,
}

/// What an endpoint is until its first check has ended.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Initial {
    /// It gets requests.
    Up,
    /// It gets none.
    Down,
}
