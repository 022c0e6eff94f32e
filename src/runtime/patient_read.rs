//! Small files that are read whenever what they hold is wanted, beside the thread that wants it: a file system that hangs
//! stalls nobody, and holds few threads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// For the file system to answer.
const WITHIN: Duration = Duration::from_secs(1);
/// Reads that have not come back; while there are as many, there is no other.
const MOST: usize = 4;

/// Reads one file.
#[derive(Debug, Default)]
pub(crate) struct PatientRead {
    /// Held by each read that has not come back.
    under_way: Arc<()>,
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
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer");
        if Arc::strong_count(&self.under_way) > MOST {
            return Err(silent());
        }
        let held = self.under_way.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _held = held;
            read()
        });
        match tokio::time::timeout(WITHIN, reading).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(silent()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

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
        while Arc::strong_count(&reads.under_way) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reads.read(|| Ok(1)).await.unwrap(), 1);
    }
}
