//! The access log: one line a request, in JSON or in words, by default only for those that failed.
//!
//! A worker writes its lines into a buffer of its own ([`WorkerLog`]); full buffers go to one thread that writes them.
//! A target that is slow, broken or gone costs lines, which are counted, and never a request.

mod headers;
mod json;
mod layout;
mod queue;
mod record;
mod text;
mod timestamp;
mod writer;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::HeaderMap;

pub use headers::Logged;
pub use record::Record;
pub use timestamp::rfc3339;

use self::layout::Layout;
use self::queue::Queue;
use self::timestamp::Timestamp;
use self::writer::Target;
use crate::config::model::{self, AccessLogFilter, LogTarget, Samples};
use crate::error::Reason;
use crate::runtime::priority;

/// A buffer of this size goes to the writer.
const FULL: usize = 32 * 1024;

/// The log of the whole process. Its workers' handles come from [`AccessLog::worker`].
#[derive(Debug)]
pub struct AccessLog {
    /// `None` where the log is off.
    queue: Option<Arc<Queue>>,
    filter: Filter,
    layout: Layout,
}

/// A worker's end of the log.
#[derive(Debug)]
pub struct WorkerLog {
    queue: Option<Arc<Queue>>,
    filter: Filter,
    layout: Layout,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    lines: Vec<u8>,
    timestamp: Timestamp,
    random: fastrand::Rng,
}

#[derive(Debug, Clone, Copy)]
struct Filter {
    only: AccessLogFilter,
    sample: Samples,
}

impl AccessLog {
    /// Opens the target and starts the thread that writes to it.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not be started.
    pub fn start(config: &model::AccessLog) -> io::Result<Self> {
        let (filter, layout) = (Filter { only: config.only, sample: config.sample }, Layout::of(config));
        let target = match &config.target {
            LogTarget::None => return Ok(AccessLog { queue: None, filter, layout }),
            LogTarget::Stdout => Target::Stdout,
            LogTarget::Stderr => Target::Stderr,
            LogTarget::File(path) => Target::file(path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?,
        };
        let queue = Arc::new(Queue::default());
        let of_writer = Arc::clone(&queue);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            priority::give_way();
            writer::run(&of_writer, target);
        })?;
        Ok(AccessLog { queue: Some(queue), filter, layout })
    }

    /// A handle for one worker. Dropping it passes on what it holds.
    pub fn worker(&self) -> WorkerLog {
        let state = State { lines: Vec::new(), timestamp: Timestamp::new(), random: fastrand::Rng::new() };
        let (filter, layout) = (self.filter, self.layout.clone());
        WorkerLog { queue: self.queue.clone(), filter, layout, state: RefCell::new(state) }
    }

    /// Lines lost so far, because the target was too slow or refused them.
    pub fn dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.dropped())
    }

    /// Writes what the workers have passed on, and ends. False where the target did not take it within this time. Lines
    /// of workers that are still there afterwards are dropped.
    pub fn shutdown(self, within: Duration) -> bool {
        let Some(queue) = &self.queue else { return true };
        queue.close();
        queue.wait_until_finished(within)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

impl WorkerLog {
    /// Whether a request that ended so gets a line. To be asked before anything is collected for [`WorkerLog::write`].
    pub fn wants(&self, code: u16, grpc_code: Option<u8>, reason: Option<Reason>) -> bool {
        self.queue.is_some()
            && (Record::is_error(code, grpc_code, reason)
                || match self.filter.only {
                    AccessLogFilter::Errors => false,
                    AccessLogFilter::All => {
                        let share = self.filter.sample.of(code);
                        share >= 1.0 || self.state.borrow_mut().random.f64() < share
                    }
                })
    }

    /// Keeps what the line of this request will show of its headers, for they change on their way.
    pub fn capture(&self, headers: &HeaderMap) -> Option<Box<Logged>> {
        Logged::of(&self.layout.headers, headers)
    }

    /// Writes a line.
    pub fn write(&self, record: &Record<'_>) {
        let state = &mut *self.state.borrow_mut();
        record.write(&self.layout, &mut state.lines, &mut state.timestamp);
        if state.lines.len() >= FULL {
            self.pass_on(state);
        }
    }

    /// Passes lines on that wait for company. To be called about once a second.
    pub fn flush(&self) {
        self.pass_on(&mut self.state.borrow_mut());
    }

    fn pass_on(&self, state: &mut State) {
        if let (Some(queue), false) = (&self.queue, state.lines.is_empty()) {
            state.lines = queue.push(std::mem::take(&mut state.lines));
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::record::tests::example;
    use super::*;

    fn config(target: LogTarget, only: AccessLogFilter, sample: Samples) -> model::AccessLog {
        let (fields, headers) = (model::AccessLogField::ALL.to_vec(), Vec::new());
        model::AccessLog { target, only, sample, format: model::AccessLogFormat::Json, fields, headers, queries: false }
    }

    fn log(target: LogTarget, only: AccessLogFilter, sample: f64) -> AccessLog {
        AccessLog::start(&config(target, only, Samples::all(sample))).unwrap()
    }

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("outrigger-access-log-{}-{name}", std::process::id()))
    }

    #[test]
    fn every_line_of_every_worker_is_in_the_file_after_a_shutdown() {
        let path = temporary("lines");
        std::fs::write(&path, "there before\n").unwrap();
        let log = log(LogTarget::File(path.clone()), AccessLogFilter::All, 1.0);
        let workers: Vec<WorkerLog> = (0..3).map(|_| log.worker()).collect();
        for index in 0..600 {
            workers[index % 3].write(&Record { generation: index as u64, ..example() });
        }
        workers[0].flush();
        drop(workers);
        assert_eq!(log.dropped(), 0);
        assert!(log.shutdown(Duration::from_secs(60)));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("there before"));
        let mut generations: Vec<u64> = lines
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["generation"].as_u64().unwrap())
            .collect();
        generations.sort_unstable();
        assert_eq!(generations, (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
        let target = LogTarget::File(temporary("no/such/directory"));
        let config = config(target, AccessLogFilter::All, Samples::all(1.0));
        let error = AccessLog::start(&config).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no/such/directory: No such file"), "{error}");
    }

    #[test]
    fn only_what_was_asked_for_gets_a_line() {
        let errors = log(LogTarget::Stderr, AccessLogFilter::Errors, 1.0).worker();
        assert!(!errors.wants(200, None, None) && errors.wants(503, None, None));
        let all = log(LogTarget::Stderr, AccessLogFilter::All, 1.0).worker();
        assert!(all.wants(200, None, None));
        let off = log(LogTarget::None, AccessLogFilter::All, 1.0).worker();
        assert!(!off.wants(500, None, None));
    }

    #[test]
    fn a_sample_takes_its_share_of_what_went_well_and_all_errors() {
        let worker = log(LogTarget::Stderr, AccessLogFilter::All, 0.25).worker();
        worker.state.borrow_mut().random = fastrand::Rng::with_seed(7);
        let taken = (0..10_000).filter(|_| worker.wants(200, None, None)).count();
        assert!((2_300..2_700).contains(&taken), "{taken}");
        assert!((0..1_000).all(|_| worker.wants(200, Some(14), None)));
    }

    #[test]
    fn each_class_has_its_share() {
        let samples = Samples([1.0, 0.0, 1.0, 0.0, 0.0]);
        let worker = AccessLog::start(&config(LogTarget::Stderr, AccessLogFilter::All, samples)).unwrap().worker();
        assert!(!worker.wants(204, None, None) && worker.wants(308, None, None) && !worker.wants(404, None, None));
        assert!(worker.wants(500, None, None), "an error, whatever its share");
    }

    #[test]
    fn a_log_that_is_off_ends_at_once() {
        let log = log(LogTarget::None, AccessLogFilter::All, 1.0);
        log.worker().write(&example());
        assert_eq!(log.dropped(), 0);
        assert!(log.shutdown(Duration::ZERO));
    }
}
