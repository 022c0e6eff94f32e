//! One process takes another's place, and no connection is lost between the two: listening sockets that somebody else has
//! bound, and what a service manager is told.
//!
//! A new process connects to the old one's [`Post`], a Unix socket, and is given copies of every listening socket. It binds
//! what is missing, learns where requests go, begins to accept beside the old one, and says so; then the old one drains.
//! Until that word nothing has changed for the old one: whatever goes wrong with the new, it serves on.
//!
//! | file | knows |
//! | --- | --- |
//! | `inherited` | sockets that this process has not bound, and which address they are for |
//! | `activation` | those that a service manager has bound (systemd's socket activation) |
//! | `predecessor` | those of an old process, and how it is told that it may go |
//! | `post` | how a process gives its sockets to the next one |
//! | `message` | what these two say to each other, as bytes and descriptors |
//! | `peer` | who may |
//! | `manager` | what a service manager is told |

mod activation;
mod inherited;
mod manager;
mod message;
mod peer;
mod post;
mod predecessor;

pub(crate) use activation::of_service_manager;
pub(crate) use inherited::{ADMIN, ADMIN_SOCKET, Inheritance, METRICS, TAKE_OVER, key_of_listener};
pub(crate) use manager::Manager;
pub(crate) use post::{Offer, Post, Relief};
pub(crate) use predecessor::Predecessor;
