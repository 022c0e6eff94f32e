//! Small files that are read whenever what they hold is wanted, beside the thread that wants it: a file system that hangs
//! stalls nobody, and holds few threads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// For the file system to answer, waiting for a place included.
const WITHIN: Duration = Duration::from_secs(1);
/// Reads of one file that are under way at once.
const MOST: usize = 4;

/// Reads one file.
#[derive(Debug)]
pub(crate) struct PatientRead {
    /// Each read that has not come back has one.
    places: Arc<Semaphore>,
}

impl Default for PatientRead {
    fn default() -> Self {
        PatientRead { places: Arc::new(Semaphore::new(MOST)) }
    }
}

impl PatientRead {
    /// What `read` returns.
    ///
    /// # Errors
    /// Its own, and where the file system does not answer.
    pub(crate) async fn read<T, F>(&self, read: F) -> io::Result<T>
    where
        F: FnOnce() -> io::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let reading = async {
            let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let reading = tokio::task::spawn_blocking(move || {
                let _place = place;
                read()
            });
            reading.await.map_err(io::Error::other)?
        };
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer");
        tokio::time::timeout(WITHIN, reading).await.unwrap_or_else(|late| Err(silent(late)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn many_at_once_wait_for_each_other() {
        let reads = PatientRead::default();
        let [a, b, c, d, e, f] = [0; 6].map(|_| reads.read(|| Ok(1)));
        let (a, b, c, d, e, f) = tokio::join!(a, b, c, d, e, f);
        assert!([a, b, c, d, e, f].into_iter().all(|read| read.is_ok_and(|read| read == 1)));
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_stalls_nobody() {
        let reads = PatientRead::default();
        let answers: Vec<_> = (0..MOST).map(|_| channel::<()>()).collect();
        let (answers, hanging): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        for hang in hanging {
            let outcome = reads.read(move || hang.recv().map_err(io::Error::other)).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        let refused = reads.read(|| -> io::Result<()> { panic!("there are enough") }).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(answers);
        while reads.places.available_permits() < MOST {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reads.read(|| Ok(1)).await.unwrap(), 1);
    }
}
