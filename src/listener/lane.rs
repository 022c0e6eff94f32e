//! Streams of HTTP/2 whose clients take nothing.
//!
//! hyper asks a response's body for its next piece only once the client has made room for the last one, and waits for
//! that without end. But the task of each stream is ours to spawn: a lane goes beside it, knows from the body's side
//! whether a piece waits, and ends the task when the patience is over. That resets the stream, and leaves the
//! connection's others alone.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::Session;
use crate::body::{Body, Patience};
use crate::error::{Cause, Error, Reason};
use crate::runtime::timer::Timer;

/// A stream that its client resets so soon, and before it has been answered, was opened to cost something (CVE-2023-44487).
/// This and the next are Envoy's numbers.
const SOON: Duration = Duration::from_secs(1);
/// So many of those, if they are more than half of all, end the connection.
const MOST_LEFT_SOON: u64 = 500;

/// How many streams of a connection are open, and since when there is none.
#[derive(Debug)]
pub(super) struct Activity {
    pub(super) streams: Cell<usize>,
    pub(super) idle_since: Cell<Instant>,
    /// All that there have been.
    opened: Cell<u64>,
    /// Those of them that the client has soon left without an answer.
    left_soon: Cell<u64>,
}

impl Activity {
    /// True where the client opens streams only to leave them.
    pub(super) fn is_flood(&self) -> bool {
        self.left_soon.get() > MOST_LEFT_SOON && 2 * self.left_soon.get() > self.opened.get()
    }
}

/// Makes the lanes of one connection, and spawns the tasks beside them.
#[derive(Clone)]
pub(super) struct Lanes(Rc<Shared>);

struct Shared {
    activity: Rc<Activity>,
    /// Of a stream whose task is not spawned yet.
    newest: Cell<Option<Rc<Lane>>>,
}

/// One stream, which counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Lane {
    activity: Rc<Activity>,
    pub(super) opened: Instant,
    answered: Cell<bool>,
    patience: Cell<Patience>,
    /// hyper has a piece of the body that it has not passed on.
    waits: Cell<bool>,
    /// Since when that has been seen.
    since: Cell<Option<Instant>>,
    given_up: Cell<Option<Reason>>,
}

impl Lanes {
    pub(super) fn new() -> Self {
        let activity = Activity {
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            opened: Cell::new(0),
            left_soon: Cell::new(0),
        };
        Lanes(Rc::new(Shared { activity: Rc::new(activity), newest: Cell::new(None) }))
    }

    pub(super) fn activity(&self) -> &Rc<Activity> {
        &self.0.activity
    }

    /// The lane of a request that has just come. The next task that is spawned is its: hyper spawns it at once.
    pub(super) fn open(&self) -> Rc<Lane> {
        let activity = self.0.activity.clone();
        activity.streams.set(activity.streams.get() + 1);
        activity.opened.set(activity.opened.get() + 1);
        let lane = Rc::new(Lane {
            activity,
            opened: Instant::now(),
            answered: Cell::default(),
            patience: Cell::default(),
            waits: Cell::default(),
            since: Cell::default(),
            given_up: Cell::default(),
        });
        self.0.newest.set(Some(lane.clone()));
        lane
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Lanes {
    fn execute(&self, task: F) {
        match self.0.newest.take() {
            Some(lane) => tokio::task::spawn_local(Watched { task, lane, timer: Timer::default() }),
            None => tokio::task::spawn_local(task),
        };
    }
}

impl Lane {
    /// Ready when the client has taken nothing for too long.
    fn poll_given_up(&self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<()> {
        if !self.waits.get() {
            return Poll::Pending;
        }
        let since = self.since.get().unwrap_or_else(Instant::now);
        self.since.set(Some(since));
        let patience = self.patience.get();
        ready!(timer.poll(cx, patience.until(since)));
        self.given_up.set(Some(patience.reason()));
        Poll::Ready(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let now = Instant::now();
        self.activity.streams.set(self.activity.streams.get() - 1);
        self.activity.idle_since.set(now);
        if !self.answered.get() && now - self.opened < SOON {
            self.activity.left_soon.set(self.activity.left_soon.get() + 1);
        }
    }
}

pin_project! {
    /// A stream's task, until it is over or its client is given up.
    struct Watched<F> {
        #[pin]
        task: F,
        lane: Rc<Lane>,
        timer: Timer,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.task.poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => this.lane.poll_given_up(cx, this.timer),
        }
    }
}

/// A response's body on its lane.
pub(super) struct Answer {
    body: Body,
    lane: Rc<Lane>,
    /// Where it is gRPC's: a stream that is reset is `INTERNAL` to its clients, who try again where they are told that
    /// nobody is there. So an answer that breaks off ends with the status of what broke it, which no client takes for a
    /// whole one.
    grpc: Option<Rc<Session>>,
    broken: bool,
}

impl Answer {
    pub(super) fn new(body: Body, lane: Rc<Lane>, patience: Patience, grpc: Option<Rc<Session>>) -> Self {
        lane.patience.set(patience);
        lane.answered.set(true);
        Answer { body, lane, grpc, broken: false }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Answer { body, lane, grpc, broken } = self.get_mut();
        lane.waits.set(false);
        lane.since.set(None);
        if *broken {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(body).poll_frame(cx));
        lane.waits.set(matches!(&frame, Some(Ok(frame)) if frame.is_data()));
        if let (Some(Err(error)), Some(session)) = (&frame, grpc) {
            *broken = true;
            return Poll::Ready(Some(Ok(Frame::trailers(session.grpc_trailers(error)))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(reason) = self.lane.given_up.get()
            && let Some(observer) = self.body.take_observer()
        {
            observer.end(Err(Cause::downstream(reason)), Instant::now());
        }
    }
}
