//! The terminal: taken over, drawn on, and given back whatever happens.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::draw::{Scene, draw};
use super::event::Event;
use super::history::History;
use super::link::Link;
use super::view::{Then, View};
use crate::cli::admin::{Admin, Question};

/// Between two tries to reach a proxy that is gone.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Ages on the screen go on without events.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// From the stream.
enum News {
    Event(Box<Event>),
    Lost(String),
}

/// Shows what comes until somebody has seen enough.
///
/// # Errors
/// Where the proxy cannot be reached to begin with, or the terminal is none.
pub(super) async fn show(admin: &Admin, question: &Question<'_>, view: View, colours: bool) -> Result<(), String> {
    let (sender, mut news) = mpsc::unbounded_channel();
    let mut following = std::pin::pin!(follow(admin, question, sender));
    // Before the terminal is taken, so that whoever has mistyped the address reads why in the usual place.
    let first = tokio::select! {
        first = news.recv() => first,
        () = &mut following => None,
    };
    let first = match first {
        Some(News::Event(event)) => event,
        Some(News::Lost(why)) => return Err(why),
        None => return Err("the stream has ended".to_owned()),
    };
    let unusable = |error: io::Error| format!("the terminal cannot be used: {error}");
    let mut terminal = Taken::take().map_err(unusable)?;
    let mut shown =
        Shown { history: History::default(), link: Link::default(), view, address: admin.to_string(), colours };
    shown.hears(*first);
    let mut keys = keys().map_err(unusable)?;
    let (mut terminate, mut hangup) = (caught(SignalKind::terminate())?, caught(SignalKind::hangup())?);
    let mut interrupt = caught(SignalKind::interrupt())?;
    let mut ticks = tokio::time::interval(REDRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        shown.draw(&mut terminal.0).map_err(unusable)?;
        tokio::select! {
            Some(news) = news.recv() => match news {
                News::Event(event) => shown.hears(*event),
                News::Lost(why) => shown.link.loses(Instant::now(), why),
            },
            // It never ends while somebody takes what it brings.
            () = &mut following => return Ok(()),
            input = keys.recv() => match input {
                Some(Input::Key(key)) if key.kind != KeyEventKind::Release => {
                    if shown.view.key(key, &shown.history) == Then::Quit {
                        return Ok(());
                    }
                }
                Some(_) => {}
                // Its terminal is gone.
                None => return Ok(()),
            },
            _ = ticks.tick() => {}
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// What there is to draw.
struct Shown {
    history: History,
    link: Link,
    view: View,
    address: String,
    colours: bool,
}

impl Shown {
    fn hears(&mut self, event: Event) {
        self.history.add(event);
        self.link.hears(Instant::now(), self.history.restarted);
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let scene = Scene {
            latest: &self.history,
            link: &self.link,
            now: Instant::now(),
            address: &self.address,
            colours: self.colours,
        };
        terminal.draw(|frame| draw(&scene, &mut self.view, frame.buffer_mut()))?;
        Ok(())
    }
}

/// Listens, and listens again when the stream ends, for as long as somebody takes the news.
async fn follow(admin: &Admin, question: &Question<'_>, news: mpsc::UnboundedSender<News>) {
    while !news.is_closed() {
        let mut tell = |json: &str| match Event::read(json).map(|event| news.send(News::Event(Box::new(event)))) {
            Some(Err(_)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let outcome = admin.listen(question, &mut tell).await;
        let why = outcome.err().unwrap_or_else(|| "the proxy has ended the stream".to_owned());
        let _ = news.send(News::Lost(why));
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Keys, from a thread of their own: reading them blocks.
fn keys() -> io::Result<mpsc::Receiver<Input>> {
    let (sender, receiver) = mpsc::channel(16);
    let read = move || {
        while let Ok(input) = event::read() {
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(receiver)
}

fn caught(kind: SignalKind) -> Result<tokio::signal::unix::Signal, String> {
    signal(kind).map_err(|error| format!("signals cannot be caught: {error}"))
}

/// The terminal while it is ours. A panic gives it back, too, before it says what it has to.
struct Taken(DefaultTerminal);

impl Taken {
    fn take() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Taken(terminal)),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
