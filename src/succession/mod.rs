//! One process takes another's place, and no connection is lost between the two: listening sockets that somebody else has
//! bound, and what a service manager is told.
//!
//! | file | knows |
//! | --- | --- |
//! | `inherited` | sockets that this process has not bound, and which address they are for |
//! | `activation` | those that a service manager has bound (systemd's socket activation) |
//! | `manager` | what a service manager is told |

mod activation;
mod inherited;
mod manager;

pub(crate) use activation::of_service_manager;
pub(crate) use inherited::{ADMIN, ADMIN_SOCKET, Inheritance, METRICS, key_of_listener};
pub(crate) use manager::Manager;
