//! Whether events come, for people.

use std::time::Duration;

use tokio::time::Instant;

use super::words::seconds;

/// Events come once a second; after this without one, it is said.
const SILENT: Duration = Duration::from_secs(4);
/// Good news is shown this long.
const GOOD_NEWS: Duration = Duration::from_secs(10);

/// How the connection to the proxy stands.
#[derive(Debug, Default)]
pub(super) struct Link {
    heard: Option<Instant>,
    lost: Option<(Instant, String)>,
    /// When it was back, and whether with another proxy behind the address.
    back: Option<(Instant, bool)>,
}

/// How it is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Good(String),
    Bad(String),
}

impl Link {
    /// An event has come; `restarted`: of a proxy that has begun anew.
    pub(super) fn hears(&mut self, now: Instant, restarted: bool) {
        self.heard = Some(now);
        if self.lost.take().is_some() || restarted {
            self.back = Some((now, restarted));
        }
    }

    /// The stream has ended.
    pub(super) fn loses(&mut self, now: Instant, why: String) {
        let since = self.lost.take().map_or(now, |(since, _)| since);
        self.lost = Some((since, why));
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.lost.is_none() && self.heard.is_some_and(|heard| now.duration_since(heard) < SILENT)
    }

    pub(super) fn says(&self, now: Instant) -> Said {
        let ago = |at: Instant| seconds(now.duration_since(at).as_secs_f64().floor());
        match (&self.lost, self.heard, self.back) {
            (Some((since, why)), ..) => Said::Bad(format!("connection lost {} ago, trying again: {why}", ago(*since))),
            (None, None, _) => Said::Nothing,
            (None, Some(heard), _) if now.duration_since(heard) >= SILENT => {
                Said::Bad(format!("nothing heard for {}", ago(heard)))
            }
            (None, Some(_), Some((at, restarted))) if now.duration_since(at) < GOOD_NEWS => Said::Good(
                if restarted { "connected again: the proxy has restarted" } else { "connected again" }.to_owned(),
            ),
            _ => Said::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_became_of_the_proxy_is_said() {
        let (mut link, began) = (Link::default(), Instant::now());
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        assert_eq!(link.says(began), Said::Nothing);
        link.hears(began, false);
        assert!(link.is_live(after(1)));
        assert_eq!(link.says(after(5)), Said::Bad("nothing heard for 5 s".to_owned()));
        link.loses(after(6), "nobody answers".to_owned());
        link.loses(after(8), "nobody answers".to_owned());
        assert_eq!(link.says(after(9)), Said::Bad("connection lost 3 s ago, trying again: nobody answers".to_owned()));
        link.hears(after(10), true);
        assert_eq!(link.says(after(11)), Said::Good("connected again: the proxy has restarted".to_owned()));
        link.hears(after(21), false);
        assert_eq!(link.says(after(21)), Said::Nothing);
    }
}
