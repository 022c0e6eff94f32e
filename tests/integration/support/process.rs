//! A child process whose output is kept, that never outlives its test, and whose output is shown where the test fails.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::files::Directory;
use super::wait::{PATIENCE, within};

/// A running or ended process.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it, its output going to files in `directory`.
    #[track_caller]
    pub fn start(name: &str, command: &mut Command, directory: &Directory) -> Self {
        let stdout = directory.join(&format!("{name}.stdout"));
        let stderr = directory.join(&format!("{name}.stderr"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Process { name: name.to_owned(), child, stdout, stderr, ended: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// The status, where the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for the end and returns the exit code (`None` where a signal ended it).
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        self.exit_code_within(PATIENCE)
    }

    #[track_caller]
    pub fn exit_code_within(&mut self, limit: Duration) -> Option<i32> {
        match within(limit, || self.ended()) {
            Some(status) => status.code(),
            None => panic!("{} did not end within {limit:?}", self.name),
        }
    }

    /// Lets it open this many files at most, those it has open included.
    pub fn limit_open_files(&self, count: u64) {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        rustix::process::prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// How many files it has open now.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).map(Iterator::count).unwrap_or(0)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} wrote to stdout:\n{}", self.name, tail(&self.stdout()));
            eprintln!("--- {} wrote to stderr:\n{}---", self.name, tail(&self.stderr()));
        }
    }
}

/// The last 8 KiB or so.
pub fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(8 * 1024);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[from..]
}
