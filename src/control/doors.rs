//! Every bound address of the proxy's listeners: which are open, which stay and go with a configuration, and which are on
//! their way out.
//!
//! A door is known by its listener and its address as written. A listener whose address changes gets a second one, which
//! opens before the first closes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::time::Instant;

use crate::config::model::{BindAddress, Direction, Listener};
use crate::listener::entrance::Entrance;
use crate::listener::socket::{self, BindError, Bound};
use crate::runtime::address::BoundAddress;
use crate::runtime::drain::Phase;
use crate::snapshot::Snapshot;
use crate::succession::{Inheritance, Offer, key_of_listener};
use crate::upstream::limit::Limit;

/// For this long after a door was closed, its address may still be taken: ten last calls of 100 ms, and a bit.
const CLOSED_WITHIN: Duration = Duration::from_millis(1_200);

/// The doors, open ones in the order of the configuration's listeners.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    open: Vec<OpenDoor>,
    /// Closed ones that have connections.
    leaving: Vec<(Direction, Arc<Entrance>)>,
    /// Addresses of those that were closed a moment ago: workers still take in who was at the door.
    closing: Vec<(BindAddress, Instant)>,
    /// Sockets that need not be bound.
    inheritance: Inheritance,
}

/// An address that takes connections in.
#[derive(Debug)]
pub(crate) struct OpenDoor {
    pub(crate) listener: String,
    /// As written: port 0 is a port of the kernel's choice that stays.
    written: BindAddress,
    pub(crate) bound: BoundAddress,
    pub(crate) direction: Direction,
    pub(crate) entrance: Arc<Entrance>,
    /// Beside those of the workers, for whoever takes the address over.
    sockets: Vec<Socket>,
    /// A service manager has them, too.
    kept: bool,
}

/// What a configuration makes of the doors. Its addresses are bound, and nothing has changed yet.
#[derive(Debug)]
pub(crate) struct Plan {
    doors: Vec<Planned>,
}

#[derive(Debug)]
enum Planned {
    Kept,
    New {
        bound: Bound,
        /// The same sockets once more.
        own: Vec<Socket>,
        /// Another listener had them before.
        shared: bool,
    },
}

/// A door that has just been opened, for the workers to stand at.
pub(crate) struct Opened {
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) sockets: Vec<Socket>,
}

/// What has become of the doors.
pub(crate) struct Turned {
    pub(crate) opened: Vec<Opened>,
    /// These take nothing new in any more, and their connections have to be seen off.
    pub(crate) closed: Vec<Arc<Entrance>>,
}

impl Doors {
    /// None yet. What is in `inheritance` will not be bound.
    pub(crate) fn new(inheritance: Inheritance) -> Self {
        Doors { inheritance, ..Doors::default() }
    }

    pub(crate) fn inheritance(&self) -> &Inheritance {
        &self.inheritance
    }

    /// The start is over: what an earlier process had and is not wanted goes.
    pub(crate) fn settle(&mut self) {
        self.inheritance.settle();
    }

    /// Binds what `listeners` need beyond what is open and what was inherited.
    ///
    /// # Errors
    /// When an address cannot be had. Nothing has changed then.
    pub(crate) fn plan(&self, listeners: &[Listener], workers: usize, reuse_port: bool) -> Result<Plan, BindError> {
        let plan = listeners.iter().map(|listener| {
            if self.open.iter().any(|door| door.is_of(listener)) {
                return Ok(Planned::Kept);
            }
            let failed = |error| BindError {
                what: format!("listener {}", listener.name),
                address: listener.address.to_string(),
                error,
            };
            let renamed = self.open.iter().find(|door| door.written == listener.address && !is_any(&door.written));
            let bound = match renamed {
                Some(door) => door.same().map(Some),
                None => self.inheritance.claim(&key_of_listener(&listener.name), &listener.address),
            };
            let bound = match bound.map_err(failed)? {
                Some(bound) => bound,
                None => {
                    // The port may be ours on another address, which then goes.
                    let ours = self.open.iter().any(|door| same_port(&door.written, &listener.address));
                    socket::bind(&listener.address, workers, reuse_port || ours).map_err(failed)?
                }
            };
            // Whoever wrote loopback relies on it: nobody else may be let in.
            if listener.address.is_local() && !bound.address.is_local() {
                let error =
                    "the socket that was handed over is open to more than this machine, and the file says loopback";
                return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, error)));
            }
            let own = clone(&bound.sockets).map_err(failed)?;
            let bound = spread(bound, workers).map_err(failed)?;
            Ok(Planned::New { bound, own, shared: renamed.is_some() })
        });
        Ok(Plan { doors: plan.collect::<Result<_, _>>()? })
    }

    /// Makes the doors those of `listeners`, which are the ones of `plan` and of `snapshot`.
    pub(crate) fn turn(&mut self, plan: Plan, listeners: &[Listener], snapshot: &Snapshot) -> Turned {
        let mut before = std::mem::take(&mut self.open);
        let mut turned = Turned { opened: Vec::new(), closed: Vec::new() };
        let mut passed_on = Vec::new();
        for (planned, (listener, compiled)) in plan.doors.into_iter().zip(listeners.iter().zip(&snapshot.listeners)) {
            let of_name = before.iter().find(|door| door.listener == listener.name);
            let limit = of_name.map(|door| door.entrance.connections.clone());
            if let Some(limit) = &limit {
                limit.set_max(listener.limits.connections);
            }
            match planned {
                Planned::Kept => {
                    let kept = before.iter().position(|door| door.is_of(listener)).map(|at| before.remove(at));
                    self.open.extend(kept.map(|door| OpenDoor { direction: listener.direction, ..door }));
                }
                Planned::New { bound, own, shared } => {
                    let limit = limit.unwrap_or_else(|| Limit::new(listener.limits.connections));
                    let local = bound.address.is_local();
                    let lent = before.iter().any(|door| door.bound == bound.address && door.entrance.is_shared());
                    let entrance = Entrance::new(compiled.name.clone(), compiled.id, limit, local, bound.kept || lent);
                    if shared {
                        passed_on.push(bound.address.clone());
                    }
                    turned.opened.push(Opened { entrance: entrance.clone(), sockets: bound.sockets });
                    self.open.push(OpenDoor {
                        listener: listener.name.clone(),
                        written: listener.address.clone(),
                        bound: bound.address,
                        direction: listener.direction,
                        entrance,
                        sockets: own,
                        kept: bound.kept,
                    });
                }
            }
        }
        self.closing.retain(|(_, since)| since.elapsed() < CLOSED_WITHIN);
        self.leaving.retain(|(_, entrance)| entrance.connections.used() > 0 && entrance.phase() < Phase::Forced);
        for door in before {
            if passed_on.contains(&door.bound) {
                door.entrance.pass_on();
            } else {
                door.remove_file();
                self.closing.push((door.written, Instant::now()));
            }
            self.leaving.push((door.direction, door.entrance.clone()));
            turned.closed.push(door.entrance);
        }
        turned
    }

    /// True where an address of these is only taken because it was closed a moment ago.
    pub(crate) fn is_closing_for(&self, listeners: &[Listener]) -> bool {
        let closing = self.closing.iter().filter(|(_, since)| since.elapsed() < CLOSED_WITHIN);
        closing.map(|(address, _)| address).any(|closing| {
            let waits = |listener: &Listener| {
                let is_open = self.open.iter().any(|door| door.is_of(listener));
                !is_open && (listener.address == *closing || same_port(&listener.address, closing))
            };
            listeners.iter().any(waits)
        })
    }

    pub(crate) fn open(&self) -> &[OpenDoor] {
        &self.open
    }

    /// Entrances of listeners that go this way; those that are on their way out already, too.
    pub(crate) fn entrances(&self, direction: Direction) -> impl Iterator<Item = &Arc<Entrance>> {
        let open = self.open.iter().map(|door| (door.direction, &door.entrance));
        let leaving = self.leaving.iter().map(|(direction, entrance)| (*direction, entrance));
        open.chain(leaving).filter(move |(of, _)| *of == direction).map(|(_, entrance)| entrance)
    }

    /// Takes nothing new in any more where listeners go this way.
    pub(crate) fn enter(&self, direction: Direction, phase: Phase) {
        for entrance in self.entrances(direction) {
            entrance.enter(phase);
        }
    }

    /// Everything that is open, for a process that takes it over.
    ///
    /// # Errors
    /// Without free file descriptors.
    pub(crate) fn offer(&self) -> std::io::Result<Vec<Offer>> {
        let offer = |door: &OpenDoor| {
            let sockets = clone(&door.sockets)?;
            Ok(Offer { key: key_of_listener(&door.listener), sockets, kept: door.kept })
        };
        self.open.iter().map(offer).collect()
    }

    /// While another process has the sockets, too, nothing may be done to them that it would notice.
    pub(crate) fn lend(&self, lent: bool) {
        for door in &self.open {
            door.entrance.share(lent || door.kept);
        }
    }

    /// Another process accepts at every door that was lent but these, by their keys.
    pub(crate) fn pass_on(&mut self, left: &[String]) {
        for door in &mut self.open {
            if !door.entrance.is_shared() || left.contains(&key_of_listener(&door.listener)) {
                door.entrance.share(door.kept);
            } else {
                door.sockets.clear();
                door.entrance.pass_on();
            }
        }
    }

    /// Lets go of the sockets, so that their addresses are free once the workers have done so, too.
    pub(crate) fn close(&mut self, direction: Direction) {
        for door in self.open.iter_mut().filter(|door| door.direction == direction) {
            door.sockets.clear();
        }
    }
}

impl OpenDoor {
    /// Takes the file of a Unix socket away, unless somebody else has the socket, too.
    pub(crate) fn remove_file(&self) {
        if let BoundAddress::Unix(path) = &self.bound
            && !self.entrance.is_shared()
        {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The same sockets once more.
    fn same(&self) -> std::io::Result<Bound> {
        Ok(Bound { address: self.bound.clone(), sockets: clone(&self.sockets)?, kept: self.kept })
    }

    fn is_of(&self, listener: &Listener) -> bool {
        self.listener == listener.name && self.written == listener.address
    }
}

fn clone(sockets: &[Socket]) -> std::io::Result<Vec<Socket>> {
    sockets.iter().map(Socket::try_clone).collect()
}

/// A socket for each worker, of those that others have bound, too: workers share where there are too few.
fn spread(mut bound: Bound, workers: usize) -> std::io::Result<Bound> {
    // Of a Unix socket, one worker accepts and gives away.
    if matches!(bound.address, BoundAddress::Tcp(_)) {
        let distinct = bound.sockets.len();
        for shared in distinct..workers {
            let socket = bound.sockets[shared % distinct].try_clone()?;
            bound.sockets.push(socket);
        }
    }
    Ok(bound)
}

fn same_port(one: &BindAddress, other: &BindAddress) -> bool {
    port(one).is_some_and(|one| Some(one) == port(other))
}

/// Two listeners on "any port" are on two ports.
fn is_any(address: &BindAddress) -> bool {
    port(address) == Some(0)
}

fn port(address: &BindAddress) -> Option<u16> {
    match address {
        BindAddress::AllInterfaces(port) => Some(*port),
        BindAddress::Tcp(address) => Some(address.port()),
        BindAddress::Unix(_) => None,
    }
}
