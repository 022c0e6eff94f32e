//! What lines look like.

use http::HeaderName;

use crate::config::model::{AccessLog, AccessLogField, AccessLogFormat, LogTarget};

/// Made once, so that a line only has to be filled in.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) format: AccessLogFormat,
    pub(super) fields: Vec<LabelledField>,
    /// Request headers, after the fields.
    pub(super) headers: Vec<HeaderName>,
    /// Paths are written with their query.
    pub(super) queries: bool,
}

/// A field, and what stands before its value.
#[derive(Debug, Clone)]
pub(super) struct LabelledField {
    pub(super) field: AccessLogField,
    pub(super) label: Box<str>,
}

impl Layout {
    pub(super) fn of(config: &AccessLog) -> Self {
        // What nobody reads is not kept for a line either.
        let headers = if config.target == LogTarget::None { Vec::new() } else { config.headers.clone() };
        Layout { headers, ..Self::new(config.format, &config.fields, config.queries) }
    }

    pub(super) fn new(format: AccessLogFormat, fields: &[AccessLogField], queries: bool) -> Self {
        let labelled = |(position, field): (usize, &AccessLogField)| {
            let name = field.as_str();
            let label = match format {
                AccessLogFormat::Json => format!("{}\"{name}\":", if position == 0 { '{' } else { ',' }),
                AccessLogFormat::Text => format!("{name}="),
            };
            LabelledField { field: *field, label: label.into() }
        };
        Layout { format, fields: fields.iter().enumerate().map(labelled).collect(), headers: Vec::new(), queries }
    }
}
