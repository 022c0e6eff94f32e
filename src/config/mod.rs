//! The configuration: text in, [`model::Config`] or every mistake out. No socket, file or clock.

pub mod model;
pub mod template;
