//! A real terminal: a window of tmux, with a server of its own.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use super::files::Directory;
use super::tools::{needed, run};
use super::wait::{PATIENCE, within};

/// What a program leaves on the screen stays there when it has ended.
const SETTINGS: &str = "set -g remain-on-exit on\nset -g status off\nset -g default-terminal screen-256color\n";

/// Says how the program has ended. The window's own word for it does not always come (tmux 3.3 can miss its child's end).
const SHELL: &str = r#"trap : INT; "$@"; echo $? > "$0""#;

/// A window in which one program runs.
pub struct Terminal {
    socket: PathBuf,
    /// Holds the program's exit code at its end.
    code: PathBuf,
    _directory: Directory,
}

impl Terminal {
    /// Runs the program in a window of this size, in an environment with these variables more.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(width: u32, height: u32, program: &[S], variables: &[(&str, &str)]) -> Self {
        needed("tmux", Command::new("tmux").arg("-V"), &["tmux"]);
        let directory = Directory::new();
        let settings = directory.write("tmux.conf", SETTINGS);
        let (socket, code) = (directory.join("tmux.sock"), directory.join("exit-code"));
        let terminal = Terminal { socket, code, _directory: directory };
        let mut command = terminal.tmux();
        command.arg("-f").arg(settings).args([
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
        ]);
        for (name, value) in variables {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        run(command.args(["--", "sh", "-c", SHELL]).arg(&terminal.code).args(program));
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").arg("-u").arg("-S").arg(&self.socket);
        command
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.tmux().args(arguments).output().unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is to see, row by row.
    pub fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// The same with the sequences that colour it.
    pub fn coloured(&self) -> String {
        self.ask(&["capture-pane", "-p", "-e"])
    }

    /// Presses keys, by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// True while the program has the second screen that terminals have for programs like it.
    pub fn is_taken(&self) -> bool {
        self.ask(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// The id of the program.
    #[track_caller]
    pub fn program(&self) -> u32 {
        let shell = self.ask(&["display-message", "-p", "#{pane_pid}"]).trim().to_owned();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.trim().parse().unwrap_or_else(|_| panic!("not one program: {children:?}"))
    }

    /// Waits until the screen is like this; panics with the screen when it never is.
    #[track_caller]
    pub fn shows(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let seen = within(PATIENCE, || Some(self.screen()).filter(|screen| is(screen)));
        seen.unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what} on this screen:\n{}", self.screen()))
    }

    /// Waits for the program's end, and returns its exit code.
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        let status = within(PATIENCE, || std::fs::read_to_string(&self.code).ok()?.trim().parse().ok());
        status.unwrap_or_else(|| panic!("the program did not end within {PATIENCE:?}:\n{}", self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // With the program in it.
        let _ = self.tmux().arg("kill-server").output();
    }
}
