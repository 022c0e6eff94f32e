//! The proxy's own log: what happens to it, not to single requests.

mod level;
mod stderr;
pub(crate) mod throttle;

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

pub use self::level::LogHandle;
use self::stderr::Stderr;
use crate::config::model::{Log, LogFormat, LogLevel};

/// Sends the proxy's own log to stderr; lines that it does not take at once are lost. Where the process has a log already (an embedding program's, a test's), that
/// one stays, and [`LogHandle::set_level`] does nothing.
pub fn init(config: &Log) -> LogHandle {
    let (filter, handle) = reload::Layer::new(targets(config.level));
    let subscriber = tracing_subscriber::registry();
    let installed = match config.format {
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
            subscriber.with(layer.with_writer(Stderr).with_filter(filter)).try_init()
        }
        LogFormat::Text => {
            let layer = fmt::layer().with_ansi(wants_colours()).with_target(false);
            subscriber.with(layer.with_writer(Stderr).with_filter(filter)).try_init()
        }
    };
    LogHandle::new(installed.is_ok().then_some(handle), config.level)
}

/// Libraries below us speak of every frame at `debug`; they get a word only when something is wrong, or with `trace`.
fn targets(level: LogLevel) -> Targets {
    let (ours, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new().with_default(libraries).with_target(env!("CARGO_CRATE_NAME"), ours)
}

/// <https://no-color.org>: any value but the empty one.
fn wants_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_second_log_is_no_panic() {
        let config = Log { level: LogLevel::Error, format: LogFormat::Text };
        let (first, second) = (init(&config), init(&Log { format: LogFormat::Json, ..config }));
        assert!(first.set_level(LogLevel::Warn));
        assert!(!second.set_level(LogLevel::Warn));
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let debug = targets(LogLevel::Debug);
        assert!(debug.would_enable("outrigger::telemetry", &Level::DEBUG));
        assert!(!debug.would_enable("h2::codec", &Level::DEBUG));
        assert!(debug.would_enable("h2::codec", &Level::WARN));
        assert!(!targets(LogLevel::Info).would_enable("outrigger", &Level::DEBUG));
    }
}
