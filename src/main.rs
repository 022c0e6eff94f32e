//! The command line in, an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use outrigger::cli::{self, Cli};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(cli::main(&Cli::parse()))
}
