//! What the proxy says of itself, and what it can be told.
//!
//! | door | what is there | who may |
//! | --- | --- | --- |
//! | `admin.address` | everything | [`access`] says |
//! | `admin.socket` | everything | the user that the proxy runs as (mode 0600), and root |
//! | `metrics.address` | `/metrics`, `/livez`, `/readyz`, `/probe/…`, nothing else, ever | everybody |
//!
//! Everything runs on the control thread. To add a page: its line in [`pages::PAGES`] and its arm there.

mod access;
mod answer;
mod audience;
mod configuration;
mod content;
mod dashboard;
mod door;
mod events;
mod explain;
mod log;
mod pages;
mod probe;
mod tap;
mod token;
mod view;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::{Handle, StartError};
use crate::config::model::{BindAddress, Config};
use crate::control::Control;
use crate::listener::socket::{self, BindError};
use crate::reload::Reload;
use crate::runtime::address::BoundAddress;
use crate::succession::{ADMIN, ADMIN_SOCKET, Inheritance, METRICS, Offer};
use crate::telemetry::log::LogHandle;
use access::Way;
use pages::Pages;
pub(crate) use tap::Taps;
use token::Token;

/// For the last answers, to whoever waits for the end of a drain.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// Bound addresses of the admin.
#[derive(Debug)]
pub(crate) struct Admin {
    admin: Option<socket::Bound>,
    socket: Option<socket::Bound>,
    metrics: Option<socket::Bound>,
    token: Option<Token>,
}

/// Whether a file holds a token.
///
/// # Errors
/// Where it does not.
pub(crate) fn try_token(path: &Path) -> io::Result<()> {
    Token::read(path).map(drop)
}

/// Binds the admin's addresses, but for those that were inherited, and reads its token.
pub(crate) fn bind(config: &Config, inheritance: &Inheritance) -> Result<Admin, StartError> {
    let failed = |what: &str, address: &BindAddress, error: io::Error| BindError {
        what: what.to_owned(),
        address: address.to_string(),
        error,
    };
    let bind = |what: &str, key: &str, address: &BindAddress| {
        let bound = match inheritance.claim(key, address) {
            Ok(None) => socket::bind(address, 1, false),
            Ok(Some(bound)) => Ok(bound),
            Err(error) => Err(error),
        };
        bound.map_err(|error| failed(what, address, error))
    };
    let token = config
        .admin
        .token_file
        .as_ref()
        .map(|path| Token::read(path).map_err(|error| StartError::Token { path: path.clone(), error }));
    let token = token.transpose()?;
    let admin = config.admin.address.map(|address| bind("admin", ADMIN, &BindAddress::Tcp(address))).transpose()?;
    let metrics = config.metrics.address.as_ref().map(|address| bind("metrics", METRICS, address)).transpose()?;
    let socket = config.admin.socket.as_ref().map(|path| {
        let address = BindAddress::Unix(path.clone());
        let bound = match inheritance.claim(ADMIN_SOCKET, &address) {
            Ok(None) => socket::bind_owner_only(path, Type::STREAM),
            Ok(Some(bound)) => Ok(bound),
            Err(error) => Err(error),
        };
        bound.map_err(|error| failed("admin", &address, error))
    });
    Ok(Admin { admin, socket: socket.transpose()?, metrics, token })
}

impl Admin {
    /// Everything that was bound.
    pub(crate) fn addresses(&self) -> Vec<BoundAddress> {
        self.admin.iter().chain(&self.socket).chain(&self.metrics).map(|bound| bound.address.clone()).collect()
    }

    pub(crate) fn admin_address(&self) -> Option<BoundAddress> {
        self.admin.as_ref().map(|bound| bound.address.clone())
    }

    pub(crate) fn metrics_address(&self) -> Option<BoundAddress> {
        self.metrics.as_ref().map(|bound| bound.address.clone())
    }

    /// Serves on the current thread from now on.
    pub(crate) fn serve(
        self,
        control: Arc<Control>,
        reload: Rc<Reload>,
        handle: Handle,
        taps: Rc<Taps>,
        log: Option<LogHandle>,
    ) -> Serving {
        let closing = watch::Sender::new(false);
        let pages = Rc::new(Pages { control, reload, handle, token: self.token, events: Rc::default(), taps, log });
        let admin_way = match &self.admin {
            Some(bound) if !bound.address.is_local() => Way::Network,
            _ => Way::Loopback,
        };
        let ways = [
            (self.admin, ADMIN, admin_way),
            (self.socket, ADMIN_SOCKET, Way::Socket),
            (self.metrics, METRICS, Way::Metrics),
        ];
        let (mut doors, mut own, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (bound, key, way) in ways {
            let Some(socket::Bound { address, sockets, kept }) = bound else { continue };
            if let BoundAddress::Unix(path) = address
                && !kept
            {
                files.push((key, path));
            }
            own.push((key, sockets.iter().filter_map(|socket| socket.try_clone().ok()).collect(), kept));
            for socket in sockets {
                let pages = pages.clone();
                let answer = move |request| pages.clone().answer(way, request);
                doors.push(tokio::task::spawn_local(door::serve(socket, answer, closing.subscribe())));
            }
        }
        Serving { doors, closing, files: RefCell::new(files), own: RefCell::new(own), lent: Cell::new(false) }
    }
}

/// The admin at work.
pub(crate) struct Serving {
    closing: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
    /// Of the Unix sockets among its addresses.
    files: RefCell<Vec<(&'static str, PathBuf)>>,
    /// Its sockets by their keys, for a process that takes them over; whether a service manager has them, too.
    own: RefCell<Vec<(&'static str, Vec<Socket>, bool)>>,
    /// Another process has them.
    lent: Cell<bool>,
}

impl Serving {
    /// Its sockets, for a process that takes them over.
    ///
    /// # Errors
    /// Without free file descriptors.
    pub(crate) fn offer(&self) -> io::Result<Vec<Offer>> {
        let offer = |(key, sockets, kept): &(&str, Vec<Socket>, bool)| {
            let sockets = sockets.iter().map(Socket::try_clone).collect::<io::Result<_>>()?;
            Ok(Offer { key: (*key).to_owned(), sockets, kept: *kept })
        };
        self.own.borrow().iter().map(offer).collect()
    }

    /// Another process has the sockets, or has them no longer.
    pub(crate) fn lend(&self, lent: bool) {
        self.lent.set(lent);
    }

    /// Takes nothing new any more: another process answers, but for the addresses of `left`.
    pub(crate) fn leave(&self, left: &[String]) {
        self.files.borrow_mut().retain(|(key, _)| left.iter().any(|left| left == key));
        self.own.borrow_mut().clear();
        self.lent.set(false);
        self.closing.send_replace(true);
    }

    /// Takes nothing new, and gives the answers that are due.
    pub(crate) async fn finish(self) {
        self.own.borrow_mut().clear();
        self.closing.send_replace(true);
        let _ = tokio::time::timeout(LAST_ANSWERS, async {
            for door in self.doors {
                let _ = door.await;
            }
        })
        .await;
        let ours = if self.lent.get() { Vec::new() } else { self.files.take() };
        for (_, file) in ours {
            let _ = std::fs::remove_file(file);
        }
    }
}
