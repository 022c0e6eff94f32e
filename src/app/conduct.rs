//! What is wished of a running proxy from outside, and who sees to it: also that another process takes its place.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::admin;
use crate::control::{Control, Ending};
use crate::reload::Reload;
use crate::reload::source::Source;
use crate::succession::{Manager, Post, Relief};

use super::relief::relieve;

/// What is wished of a running proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// The configuration's source read again.
    Reload,
    /// Unready, then inbound drained; the proxy stays.
    Drain,
    /// Drained and ended.
    End { delay: bool },
    /// Ended now.
    EndNow,
}

/// Steers a running proxy, from anywhere.
#[derive(Debug, Clone)]
pub struct Handle {
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Handle {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Wish>) {
        let (wishes, wished) = mpsc::unbounded_channel();
        (Handle { wishes }, wished)
    }

    /// Reads the configuration's source again, be it unchanged: what SIGHUP does. Where what it holds cannot be put in
    /// force, the log says so and nothing changes.
    pub fn reload(&self) {
        let _ = self.wishes.send(Wish::Reload);
    }

    /// Unready from now on; after `drain.delay` inbound requests are let finish and no new ones taken. Outbound goes on
    /// until the proxy is ended, for the app beside it is still at work.
    pub fn drain(&self) {
        let _ = self.wishes.send(Wish::Drain);
    }

    /// Drains and ends: what SIGTERM does. The second time, ends at once.
    pub fn end(&self) {
        let _ = self.wishes.send(Wish::End { delay: true });
    }

    /// The same without `drain.delay`: what Ctrl-C does.
    pub fn end_soon(&self) {
        let _ = self.wishes.send(Wish::End { delay: false });
    }

    /// Ends at once; what is in flight is cut.
    pub fn end_now(&self) {
        let _ = self.wishes.send(Wish::EndNow);
    }
}

/// Whom the wishes concern.
pub(super) struct Conduct<'c> {
    pub(super) control: &'c Arc<Control>,
    pub(super) reload: &'c Rc<Reload>,
    pub(super) source: &'c Source,
    pub(super) manager: &'c Rc<Manager>,
    pub(super) admin: &'c admin::Serving,
    /// Where the next process asks.
    pub(super) post: Option<Post>,
}

/// Follows the wishes until the proxy has ended.
pub(super) async fn conduct(
    Conduct { control, reload, source, manager, admin, post }: Conduct<'_>,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
) -> Ending {
    if let Err(error) = source.follow(reload) {
        tracing::error!(%error, "cannot follow the configuration's source; SIGHUP still reads it");
    }
    tokio::task::spawn_local({
        let reload = reload.clone();
        async move { reload.tidy().await }
    });
    tokio::task::spawn_local({
        let reload = reload.clone();
        async move { reload.watch_over().await }
    });
    let mut draining = false;
    let mut ending = false;
    let mut relieved = false;
    let mut drain: Awaited<'_, bool> = None;
    let mut post = post.map(Rc::new);
    let mut relief: Awaited<'_, Option<(u32, Relief)>> = None;
    if let Some(post) = post.clone() {
        relief = Some(Box::pin(relieve(post, control, reload, admin)));
    }
    loop {
        let wish = tokio::select! {
            wish = wishes.recv() => wish.unwrap_or(Wish::EndNow),
            drained = if_any(&mut drain) => {
                if ending || relieved {
                    return control.end(drained).await;
                }
                continue;
            }
            relieved_by = if_any(&mut relief) => {
                let Some((pid, there)) = relieved_by else {
                    post = None;
                    continue;
                };
                tracing::info!(pid, "another process serves now; what is left here is let finish");
                relieved = true;
                manager.succeeded_by(pid);
                admin.leave(&there.left);
                control.doors().pass_on(&there.left);
                *control.registered_elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = there.registered;
                // A drain that is to end in the proxy's end goes on as it is.
                if !ending {
                    drain = Some(Box::pin(drained_for_another(control.clone())));
                }
                control.announce();
                continue;
            }
        };
        // Whoever ends has nothing to give away any more, so that the next process finds nobody and starts by itself. What
        // one has already been given stays its.
        let is_lent = post.as_ref().is_some_and(|post| {
            if wish != Wish::Reload {
                post.close();
            }
            post.is_lent()
        });
        if wish != Wish::Reload && !is_lent {
            (relief, post) = (None, None);
        }
        match wish {
            Wish::Reload if ending || relieved => {
                tracing::info!("this process ends, so that its configuration is not read again");
                continue;
            }
            Wish::Reload => {
                let (reload, source, manager) = (reload.clone(), source.clone(), manager.clone());
                tokio::task::spawn_local(async move {
                    manager.reloading();
                    source.read_again(&reload).await;
                    manager.ready();
                });
                continue;
            }
            Wish::EndNow => return control.end(false).await,
            Wish::End { .. } if ending => return control.end(false).await,
            Wish::End { .. } if relieved => ending = true,
            Wish::End { delay } => {
                ending = true;
                manager.stopping();
                tracing::info!("ending: unready, then draining");
                // Whoever began a drain by hand has waited, or has no time left.
                let delay = if delay && !draining { control.drain().delay } else { Duration::ZERO };
                drain = Some(Box::pin(drained(control.clone(), delay, true)));
            }
            Wish::Drain if draining || ending || relieved => {}
            Wish::Drain => {
                draining = true;
                tracing::info!("draining inbound");
                drain = Some(Box::pin(drained(control.clone(), control.drain().delay, false)));
            }
        }
        control.announce();
    }
}

/// Something that may be under way.
type Awaited<'f, T> = Option<Pin<Box<dyn Future<Output = T> + 'f>>>;

/// What the future comes to, once; without one, never.
async fn if_any<T>(future: &mut Awaited<'_, T>) -> T {
    let output = match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    };
    *future = None;
    output
}

/// The app is still at work, so outbound connections are seen off as carefully as inbound ones.
async fn drained_for_another(control: Arc<Control>) -> bool {
    let drained = control.drain_all(control.drain().timeout).await;
    control.out_of_registries().await;
    drained
}

async fn drained(control: Arc<Control>, delay: Duration, outbound_too: bool) -> bool {
    tokio::time::sleep(delay).await;
    control.out_of_registries().await;
    control.drain_inbound(control.drain().timeout, outbound_too).await
}
