//! Which route takes a request.
//!
//! [`Table`] holds a listener's routes, compiled: [`Table::find`] gives the first in written order that matches, at a
//! cost that does not grow with their number. [`rewrite`] changes the target on its way on, or says where to go instead.

pub(crate) mod condition;
mod host;
pub(crate) mod normal;
mod path;
pub mod rewrite;
pub(crate) mod service;
pub mod table;
pub mod target;

pub use table::Table;
pub use target::Target;
