//! The log's level while the proxy runs: what the configuration says, and what somebody has laid over it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use super::targets;
use crate::config::model::LogLevel;

/// Changes the level while the proxy runs.
#[derive(Debug, Clone)]
pub struct LogHandle {
    /// `None` where the log is not ours.
    filter: Option<reload::Handle<Targets, Registry>>,
    levels: Arc<Mutex<Levels>>,
}

#[derive(Debug)]
struct Levels {
    configured: LogLevel,
    over: Option<Over>,
    /// Levels that were laid over so far: the number of the last one.
    laid: u64,
}

/// A level over that of the configuration.
#[derive(Debug, Clone, Copy)]
struct Over {
    level: LogLevel,
    until: Option<Instant>,
}

/// How the level stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownLevel {
    /// What is written now.
    pub level: LogLevel,
    /// What the configuration says.
    pub configured: LogLevel,
    /// True where another level lies over it.
    pub overridden: bool,
    /// Until that goes away by itself.
    pub left: Option<Duration>,
}

impl LogHandle {
    pub(super) fn new(filter: Option<reload::Handle<Targets, Registry>>, configured: LogLevel) -> Self {
        LogHandle { filter, levels: Arc::new(Mutex::new(Levels { configured, over: None, laid: 0 })) }
    }

    /// What the configuration says from now on. Shows as soon as no other level lies over it. False where the log is not
    /// ours.
    pub fn set_level(&self, level: LogLevel) -> bool {
        let mut levels = self.levels();
        levels.configured = level;
        self.apply(&levels)
    }

    /// From now on this level, whatever the configuration says, until it is [lifted](Self::lift); its number is for that.
    /// `None` where the log is not ours.
    pub fn lay_over(&self, level: LogLevel, lasts: Option<Duration>) -> Option<u64> {
        let mut levels = self.levels();
        levels.over = Some(Over { level, until: lasts.map(|lasts| Instant::now() + lasts) });
        levels.laid += 1;
        let number = levels.laid;
        self.apply(&levels).then_some(number)
    }

    /// The configuration's level holds again, where the last one laid over is that of this number. True where it was.
    pub fn lift(&self, number: u64) -> bool {
        let mut levels = self.levels();
        levels.laid == number && levels.over.take().is_some() && self.apply(&levels)
    }

    /// The configuration's level holds again. False where nothing lay over it.
    pub fn lift_any(&self) -> bool {
        let mut levels = self.levels();
        levels.over.take().is_some() && self.apply(&levels)
    }

    /// How the level stands; `None` where the log is not ours.
    pub fn shown(&self) -> Option<ShownLevel> {
        self.filter.as_ref()?;
        let levels = self.levels();
        let until = levels.over.and_then(|over| over.until);
        Some(ShownLevel {
            level: levels.now(),
            configured: levels.configured,
            overridden: levels.over.is_some(),
            left: until.map(|until| until.saturating_duration_since(Instant::now())),
        })
    }

    fn apply(&self, levels: &Levels) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.reload(targets(levels.now())).is_ok())
    }

    fn levels(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Levels {
    fn now(&self) -> LogLevel {
        self.over.map_or(self.configured, |over| over.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_over_outlasts_what_the_configuration_says() {
        let (_layer, filter) = reload::Layer::<Targets, Registry>::new(targets(LogLevel::Info));
        let log = LogHandle::new(Some(filter), LogLevel::Info);
        let level = || log.shown().map(|shown| (shown.level, shown.configured, shown.overridden));
        let first = log.lay_over(LogLevel::Debug, None).unwrap();
        assert!(log.set_level(LogLevel::Warn));
        assert_eq!(level(), Some((LogLevel::Debug, LogLevel::Warn, true)));
        let second = log.lay_over(LogLevel::Trace, Some(Duration::from_secs(60))).unwrap();
        assert!(!log.lift(first), "it has been replaced, so its end is nobody's");
        assert!(log.shown().unwrap().left > Some(Duration::from_secs(50)));
        assert!(log.lift(second));
        assert_eq!(level(), Some((LogLevel::Warn, LogLevel::Warn, false)));
        assert!(!log.lift_any());
    }

    #[test]
    fn a_log_that_is_not_ours_has_no_level() {
        let log = LogHandle::new(None, LogLevel::Info);
        assert_eq!((log.shown(), log.lay_over(LogLevel::Debug, None)), (None, None));
    }
}
