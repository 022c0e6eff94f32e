//! The command line in, an exit code out.

use std::panic::catch_unwind;
use std::process::ExitCode;

use clap::Parser as _;
use outrigger::cli::{self, Cli, exit};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Rust's own code for a panic is 101, which says nothing to whoever reads codes.
    ExitCode::from(catch_unwind(|| cli::main(&cli)).unwrap_or(exit::INTERNAL))
}
