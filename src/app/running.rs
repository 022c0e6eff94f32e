//! A proxy that runs.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Ending, Handle};
use crate::control::Control;
use crate::runtime::address::BoundAddress;

/// For the access log's last lines to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A running proxy.
#[derive(Debug)]
pub struct Running {
    pub(super) addresses: Vec<(String, BoundAddress)>,
    pub(super) admin_addresses: (Option<BoundAddress>, Option<BoundAddress>),
    pub(super) handle: Handle,
    pub(super) control: Arc<Control>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) ended: std::sync::mpsc::Receiver<Ending>,
}

impl Running {
    /// Each listener's name and the address that it really has, as they were when the proxy started.
    pub fn listeners(&self) -> &[(String, BoundAddress)] {
        &self.addresses
    }

    /// The admin's address, where it has one.
    pub fn admin(&self) -> Option<&BoundAddress> {
        self.admin_addresses.0.as_ref()
    }

    /// The address of metrics and probes, where it has one.
    pub fn metrics(&self) -> Option<&BoundAddress> {
        self.admin_addresses.1.as_ref()
    }

    /// For whoever decides that it ends.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Blocks until the proxy has ended.
    pub fn wait(self) -> Ending {
        let ending = self.ended.recv().unwrap_or(Ending::Forced);
        for thread in self.threads {
            let _ = thread.join();
        }
        let log = self.control.access_log.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(log) = log {
            log.shutdown(LAST_LINES);
        }
        for door in self.control.doors().open() {
            door.remove_file();
        }
        ending
    }
}
