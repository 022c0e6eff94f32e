//! What goes wrong again and again: it is worth a line in the log when it begins, when it has another cause than before,
//! and now and then.

use std::time::Duration;

use tokio::time::Instant;

/// A cause that lasts is worth another line after this long.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// Causes that are told apart until then: more than there are, unless each time has its own.
const CAUSES: usize = 4;

/// What has been complained of since things went wrong.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    since: Option<Instant>,
    causes: Vec<String>,
}

impl Complaints {
    /// True where this is worth a line.
    pub(crate) fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= REMIND_EVERY) {
            *self = Complaints { since: Some(now), causes: Vec::new() };
        }
        let is_news = self.causes.len() < CAUSES && !self.causes.iter().any(|known| known == cause);
        if is_news {
            self.causes.push(cause.to_owned());
        }
        is_news
    }

    /// All is well. True where something was complained of.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::take(self).since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cause_is_news_and_a_flood_of_them_is_not() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert!(!complaints.end());
        assert!(complaints.is_news("refused", start));
        assert!(!complaints.is_news("refused", start + REMIND_EVERY / 2));
        assert!(complaints.is_news("denied", start + REMIND_EVERY / 2));
        assert!(!complaints.is_news("refused", start + REMIND_EVERY / 2));
        let told = (0..100).filter(|cause| complaints.is_news(&cause.to_string(), start + REMIND_EVERY / 2)).count();
        assert_eq!(told, CAUSES - 2);
        assert!(complaints.is_news("denied", start + REMIND_EVERY));
        assert!(complaints.end() && !complaints.end());
        assert!(complaints.is_news("denied", start + REMIND_EVERY));
    }
}
