//! How this process takes another's place when it starts, and gives its own away while it runs.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Socket, Type};

use super::StartError;
use crate::admin;
use crate::config::model::BindAddress;
use crate::control::Control;
use crate::control::doors::Doors;
use crate::listener::socket;
use crate::reload::Reload;
use crate::runtime::address::BoundAddress;
use crate::succession::{Inheritance, Offer, Post, Predecessor, Relief, TAKE_OVER};

/// So long a process looks for its endpoints before it serves in another's place.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// So long no configuration is swapped for a process that is to take over: twice as long as it looks for its endpoints.
const HELD_FOR: Duration = Duration::from_secs(60);

/// What a start that takes over begins with.
#[derive(Debug)]
pub(super) struct Taken {
    /// `None` where no process ran.
    predecessor: Option<Predecessor>,
    /// Where the next process will ask.
    door: Socket,
    path: PathBuf,
}

impl Taken {
    /// Asks whoever runs at `path` for its sockets.
    ///
    /// # Errors
    /// Where it may not be asked, or the path cannot be used.
    pub(super) fn at(path: PathBuf, inheritance: &mut Inheritance) -> Result<Self, StartError> {
        let mut ask = || {
            let predecessor = Predecessor::ask(&path, inheritance)?;
            let bound = match inheritance.claim(TAKE_OVER, &BindAddress::Unix(path.clone()))? {
                Some(bound) => bound,
                None => socket::bind_owner_only(&path, Type::SEQPACKET)?,
            };
            let door = bound.sockets.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
            Ok((predecessor, door))
        };
        match ask() {
            Ok((predecessor, door)) => Ok(Taken { predecessor, door, path }),
            Err(error) => Err(StartError::TakeOver { path, error }),
        }
    }

    /// True where another process serves until it is relieved.
    pub(super) fn is_beside_another(&self) -> bool {
        self.predecessor.is_some()
    }

    /// This process serves, but for the addresses of `left`: the other one may go, and the next may ask.
    pub(super) fn relieve(self, left: Vec<String>, registered: Option<String>) -> Option<Post> {
        if let Some(predecessor) = self.predecessor {
            predecessor.relieve(left, registered);
        }
        let post = Post::new(self.door, self.path);
        post.inspect_err(|error| tracing::error!(%error, "no process will be able to take over from this one")).ok()
    }
}

/// Whoever connects to a socket that a service manager holds and that nobody accepts from waits in vain.
pub(super) fn report_unclaimed(doors: &Doors, admin: &[BoundAddress]) {
    for socket in doors.inheritance().unclaimed(doors.open().iter().map(|door| &door.bound).chain(admin)) {
        tracing::warn!(
            socket,
            "the service manager has opened this socket, and nothing in the configuration has its address or name: \
             whoever connects there waits in vain"
        );
    }
}

/// Gives the sockets to every process that asks, until one of them, whose id it returns, serves in this one's place.
/// `None` where none has and the post is closed.
///
/// Once a process has been offered the sockets, they are its, too, until it has gone: also while this one drains, and
/// after it has ended.
pub(super) async fn relieve(
    post: Rc<Post>,
    control: &Control,
    reload: &Reload,
    admin: &admin::Serving,
) -> Option<(u32, Relief)> {
    let post = &*post;
    while !post.is_closed() {
        let candidate = post.candidate().await;
        // No swap happens meanwhile, so that what was offered stays as it is.
        let held = reload.hold().await;
        if post.is_closed() {
            break;
        }
        lend(true, post, control, admin);
        let relief = match offers(post, control, admin) {
            Ok(offers) => {
                let mut serving = std::pin::pin!(candidate.serves(&offers));
                match tokio::time::timeout(HELD_FOR, serving.as_mut()).await {
                    Ok(relief) => relief,
                    Err(_) => {
                        let pid = candidate.pid;
                        tracing::warn!(
                            pid,
                            "the process that is to take over does not serve after 60 s; this one serves on, and its \
                             configuration may change again"
                        );
                        drop(held);
                        serving.await
                    }
                }
            }
            Err(error) => Err(error),
        };
        match relief {
            Ok(relief) => return Some((candidate.pid, relief)),
            Err(error) => {
                lend(false, post, control, admin);
                let pid = candidate.pid;
                tracing::error!(pid, %error, "the process that was to take over does not; this one serves on");
            }
        }
    }
    None
}

fn lend(lent: bool, post: &Post, control: &Control, admin: &admin::Serving) {
    control.doors().lend(lent);
    admin.lend(lent);
    post.lend(lent);
}

fn offers(post: &Post, control: &Control, admin: &admin::Serving) -> io::Result<Vec<Offer>> {
    let mut offers = control.doors().offer()?;
    offers.extend(admin.offer()?);
    offers.push(post.offer()?);
    Ok(offers)
}
