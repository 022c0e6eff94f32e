//! Where requests go.

pub mod round_robin;
pub mod split;

pub use round_robin::RoundRobin;
pub use split::Split;
