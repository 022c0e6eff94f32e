//! `outrigger completions`: the command line, completed by the shell.

use std::io::{self, Write};

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

/// Print a script that completes this command line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger completions bash > /etc/bash_completion.d/outrigger
  outrigger completions zsh > ~/.zfunc/_outrigger
  outrigger completions fish > ~/.config/fish/completions/outrigger.fish")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints it.
///
/// # Errors
///
/// Where it cannot be written.
pub fn completions(args: &CompletionsArgs, output: &mut dyn Write) -> io::Result<u8> {
    // Into memory first: the generator takes a pipe that was closed for a mistake of its own.
    let mut script = Vec::new();
    generate(args.shell, &mut super::Cli::command(), "outrigger", &mut script);
    output.write_all(&script)?;
    Ok(super::exit::DONE)
}
