//! The proxy inside another program: on a free port, and ended by the program instead of by a signal.
//!
//! ```console
//! $ cargo run --example embedded -- 127.0.0.1:8080
//! ```
//! sends everything that arrives on the printed address to 127.0.0.1:8080, until Enter is pressed.

use std::error::Error;
use std::io::{self, Write as _};

use outrigger::app::{Builder, Ending, Running};
use outrigger::config::{Document, LoadOptions, load};

/// Port 0 takes any free port; `${UPSTREAM}` is filled in by [`start`]. No admin, for this program is that itself.
const CONFIG: &str = r#"
admin: { address: none }
workers: 1
drain: { delay: 0s, timeout: 5s }
telemetry: { access_log: { path: none } }
listeners:
  inbound: { address: "127.0.0.1:0", upstream: "${UPSTREAM}" }
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let upstream = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let running = start(&upstream)?;
    let mut out = io::stdout();
    for (name, address) in running.listeners() {
        writeln!(out, "{name}: http://{address} -> {upstream}")?;
    }
    writeln!(out, "Enter ends it.")?;
    io::stdin().read_line(&mut String::new())?;
    match stop(running) {
        Ending::Drained => writeln!(out, "every request was answered")?,
        Ending::Forced => writeln!(out, "requests were cut")?,
    }
    Ok(())
}

/// Starts the proxy; when this returns, it takes connections. A mistake in the configuration comes back with its place
/// in the text, an address that cannot be had with its name.
pub fn start(upstream: &str) -> Result<Running, Box<dyn Error>> {
    // Variables come from wherever the program likes; the process's environment is only one choice.
    let variables = |name: &str| (name == "UPSTREAM").then(|| upstream.to_owned());
    let document = Document { name: "embedded.rs", bytes: CONFIG.as_bytes() };
    let loaded = load(document, &variables, &LoadOptions::default())?;
    Ok(Builder::new(loaded, "embedded").start()?)
}

/// Lets requests in flight finish, and waits for the end. The handle could be sent to another thread.
pub fn stop(running: Running) -> Ending {
    running.handle().end();
    running.wait()
}
