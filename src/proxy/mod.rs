//! What happens to a request between its listener and its upstream.

pub mod forwarded;
pub mod header_rules;
pub mod hop_by_hop;
mod list_field;
pub mod via;
