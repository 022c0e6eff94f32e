//! What is wished of a running proxy from outside, and who sees to it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::control::{Control, Ending};
use crate::reload::Reload;
use crate::reload::source::Source;
use crate::succession::Manager;

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

/// Follows the wishes until the proxy has ended.
pub(super) async fn conduct(
    control: &Arc<Control>,
    reload: &Rc<Reload>,
    source: &Source,
    manager: &Rc<Manager>,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
) -> Ending {
    if let Err(error) = source.follow(reload) {
        tracing::error!(%error, "cannot follow the configuration's source; SIGHUP still reads it");
    }
    tokio::task::spawn_local({
        let reload = reload.clone();
        async move { reload.tidy().await }
    });
    let mut draining = false;
    let mut ending = false;
    let mut drain = std::pin::pin!(None::<std::pin::Pin<Box<dyn Future<Output = bool>>>>);
    loop {
        let wish = tokio::select! {
            wish = wishes.recv() => wish.unwrap_or(Wish::EndNow),
            drained = async { match drain.as_mut().as_pin_mut() {
                Some(drain) => drain.await,
                None => std::future::pending().await,
            } } => {
                drain.set(None);
                if ending {
                    return control.end(drained).await;
                }
                continue;
            }
        };
        match wish {
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
            Wish::End { delay } => {
                ending = true;
                manager.stopping();
                tracing::info!("ending: unready, then draining");
                // Whoever began a drain by hand has waited, or has no time left.
                let delay = if delay && !draining { control.drain().delay } else { Duration::ZERO };
                drain.set(Some(Box::pin(drained(control.clone(), delay, true))));
            }
            Wish::Drain if draining || ending => {}
            Wish::Drain => {
                draining = true;
                tracing::info!("draining inbound");
                drain.set(Some(Box::pin(drained(control.clone(), control.drain().delay, false))));
            }
        }
        control.announce();
    }
}

async fn drained(control: Arc<Control>, delay: Duration, outbound_too: bool) -> bool {
    tokio::time::sleep(delay).await;
    control.out_of_registries().await;
    control.drain_inbound(control.drain().timeout, outbound_too).await
}
