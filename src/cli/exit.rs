//! Exit codes, and how a command says why it could not do its work.

/// The work was done.
pub const DONE: u8 = 0;
/// The input or the environment is at fault.
pub const FAULT: u8 = 1;
/// The command line cannot be understood.
pub const USAGE: u8 = 2;
/// A drain had to be forced.
pub const FORCED: u8 = 3;
/// Nobody reads the output any more, as in `outrigger schema | head`: what a shell says of those that SIGPIPE ends.
pub const UNREAD: u8 = 141;
/// A mistake in this program.
pub const INTERNAL: u8 = 70;

/// Says what is not as it should be, on standard error.
pub fn warning(message: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "warning: {message}");
}

/// Says what is wrong with the command line, on standard error.
pub fn usage(message: &str) -> u8 {
    fault(message);
    USAGE
}

/// Says why there is no answer, on standard error, to whoever wants it as an exit code: to them, 1 is an answer. As
/// `diff(1)` and `grep(1)` do it.
pub fn unanswered(message: &str) -> u8 {
    fault(message);
    USAGE
}

/// Says what is wrong, on standard error.
pub fn fault(message: &str) -> u8 {
    use std::io::Write as _;
    // What is wrong with a file says itself how bad it is.
    let word = if message.starts_with("error[") || message.starts_with("warning[") { "" } else { "error: " };
    let _ = writeln!(std::io::stderr(), "{word}{message}");
    FAULT
}
