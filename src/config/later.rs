//! Keys and words of the product whose capability is not in this version. They are refused by name, never ignored.

/// Keys of a mapping that are known and not there yet. Mappings go by the names of their raw types.
pub(crate) fn keys(mapping: &str) -> &'static [&'static str] {
    match mapping {
        "ListenerLimits" => &["shadow"],
        "Defaults" => &["tls"],
        "UpstreamLimits" => &["shadow"],
        _ => &[],
    }
}

/// The code of a finding whose reason is or is not [`SENTENCE`].
pub(crate) fn code(reason: &str) -> &'static str {
    if reason.ends_with(SENTENCE) { "not-yet" } else { "invalid-value" }
}

/// What is said of all of them.
pub(crate) const SENTENCE: &str = "is known, but not in this version yet";
