//! What is refused for what surrounds it, such as a port that is taken or a file that is not there yet, is tried again:
//! nobody will change a source whose text is right.

use std::rc::Rc;
use std::time::Duration;

use super::Reload;
use crate::config::ContentHash;

/// Before the first time; each pause is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);
/// Once a minute costs nothing, and is soon enough for whoever has waited longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Between one attempt and the next.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST), |pause| Some((*pause * 2).min(LONGEST)))
}

impl Reload {
    /// Until this is in force, or is wrong, the source says something else, or somebody has rolled back.
    pub(super) fn try_again(self: &Rc<Self>, bytes: Vec<u8>, hash: ContentHash) {
        let (reload, said) = (self.clone(), self.said.get());
        tokio::task::spawn_local(async move {
            for pause in pauses() {
                tokio::time::sleep(pause).await;
                let _turn = reload.turn.lock().await;
                if reload.said.get() != said {
                    return;
                }
                let outcome = reload.take_truth(bytes.clone(), hash).await;
                reload.note_source(&outcome);
                if !outcome.is_err_and(|refusal| refusal.may_pass()) {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds: Vec<u64> = pauses().take(8).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
