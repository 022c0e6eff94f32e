//! `outrigger check`: every mistake of a configuration.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::exit;
use crate::app::trial::try_files;
use crate::config::environment::{Environment, MissingVariables};
use crate::config::render::{Format, render};
use crate::config::{Document, LoadOptions, MAX_BYTES, Report, examine, unreadable};

/// Say every mistake of a configuration, each with its place and what to do.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger check outrigger.yaml
  envsubst < outrigger.yaml.in | outrigger check -
  outrigger check --env-file production.env --no-files --format github outrigger.yaml
  outrigger check --effective outrigger.yaml
  outrigger check configs/*.yaml

Exit codes: 0 it can be run (of several: each), 1 it cannot, 2 usage")]
pub struct CheckArgs {
    /// The configuration, or - for standard input; several are checked one after the other
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Take variables from this file of NAME=VALUE lines first, then from the environment
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,

    /// Do not mind variables that are not set: what depends on them is not checked
    #[arg(long)]
    pub allow_missing_env: bool,

    /// Do not look for the files that the configuration names, nor into certificates and keys
    #[arg(long)]
    pub no_files: bool,

    /// Print the whole configuration with every default written out, variables as written
    #[arg(long)]
    pub effective: bool,

    /// How to write the mistakes
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Text)]
    pub format: FormatArg,

    /// Take warnings for errors
    #[arg(long)]
    pub strict: bool,
}

/// How mistakes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// For people
    Text,
    /// One JSON object a file
    Json,
    /// Commands of GitHub's workflows
    Github,
    /// SARIF 2.1.0, for code scanners
    Sarif,
}

/// What a command reads and writes besides files.
pub struct Streams<'s> {
    /// For `-`.
    pub input: &'s mut dyn Read,
    /// For results.
    pub output: &'s mut dyn Write,
    /// For mistakes.
    pub errors: &'s mut dyn Write,
    /// Whether `errors` is a terminal that wants colours.
    pub colours: bool,
}

/// Checks configurations; gives the exit code, which is that of the worst.
///
/// # Errors
///
/// Where an answer cannot be written.
pub fn check(args: &CheckArgs, streams: &mut Streams<'_>, environment: &dyn Environment) -> io::Result<u8> {
    if args.files.len() > 1 && (args.effective || args.format == FormatArg::Sarif) {
        writeln!(streams.errors, "error: `--effective` and `--format sarif` make one document: name one file")?;
        return Ok(exit::USAGE);
    }
    let variables = match args.env_file.as_deref().map(env_file).transpose() {
        Ok(variables) => variables.unwrap_or_default(),
        Err(message) => {
            writeln!(streams.errors, "error: {message}")?;
            return Ok(exit::FAULT);
        }
    };
    let lookup = |name: &str| variables.get(name).cloned().or_else(|| environment.variable(name));
    let exists = |path: &Path| path.exists();
    let options = LoadOptions {
        missing_variables: if args.allow_missing_env { MissingVariables::Allow } else { MissingVariables::Refuse },
        file_exists: if args.no_files { None } else { Some(&exists) },
        try_files: if args.no_files { None } else { Some(&try_files) },
        ..LoadOptions::default()
    };
    let mut worst = exit::DONE;
    for file in &args.files {
        worst = worst.max(check_file(args, file, streams, &lookup, &options)?);
    }
    Ok(worst)
}

fn check_file(
    args: &CheckArgs,
    file: &Path,
    streams: &mut Streams<'_>,
    environment: &dyn Environment,
    options: &LoadOptions<'_>,
) -> io::Result<u8> {
    let name = if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() };
    let bytes = match read(file, streams.input) {
        Ok(bytes) => bytes,
        Err(error) if args.format == FormatArg::Text => {
            writeln!(streams.errors, "error: {name} cannot be read: {error}")?;
            return Ok(exit::FAULT);
        }
        // Whoever reads the report reads nothing else.
        Err(error) => return write_report(args, streams, unreadable(&name, &error)),
    };
    let report = examine(Document { name: &name, bytes: &bytes }, environment, options);
    write_report(args, streams, report)
}

/// Reads a configuration's bytes, from standard input where the path is `-`: one more than it may have at most, which
/// is then refused.
///
/// # Errors
///
/// Where the file cannot be read.
pub fn read(path: &Path, input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let most = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        input.take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn write_report(args: &CheckArgs, streams: &mut Streams<'_>, report: Report) -> io::Result<u8> {
    let diagnostics = if args.strict { report.diagnostics.strict() } else { report.diagnostics };
    let failed = diagnostics.errors() > 0;
    let format = match args.format {
        FormatArg::Text => Format::Text,
        FormatArg::Json => Format::Json,
        FormatArg::Github => Format::Github,
        FormatArg::Sarif => Format::Sarif,
    };
    let rendered = render(&diagnostics, format, streams.colours && format == Format::Text);
    // With --effective the output is the configuration alone, so that it can be piped.
    let to_errors = args.effective || format == Format::Text;
    if to_errors { &mut *streams.errors } else { &mut *streams.output }.write_all(rendered.as_bytes())?;
    if failed {
        return Ok(exit::FAULT);
    }
    match (args.effective, report.effective, report.config) {
        (true, Some(effective), _) => streams.output.write_all(effective.as_bytes())?,
        (false, _, config) if format == Format::Text => {
            let counts = config.map_or_else(
                || "some variables are not set, and what depends on them is not checked".to_owned(),
                |config| {
                    let routes = config.listeners.iter().map(|listener| listener.routes.len()).sum();
                    let counted =
                        |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
                    [
                        counted(config.listeners.len(), "listener"),
                        counted(routes, "route"),
                        counted(config.upstreams.len(), "upstream"),
                    ]
                    .join(", ")
                },
            );
            writeln!(streams.output, "{}: ok: {counts}", diagnostics.file)?;
        }
        _ => {}
    }
    Ok(exit::DONE)
}

/// Reads a file of NAME=VALUE lines: `#` comments, an `export` before a name, quotes around a value.
fn env_file(path: &Path) -> Result<HashMap<String, String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    parse_env_file(&text).map_err(|line| format!("{}:{line}: this line is not NAME=VALUE", path.display()))
}

fn parse_env_file(text: &str) -> Result<HashMap<String, String>, usize> {
    let mut variables = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let (name, value) = (name.trim(), value.trim());
        let quoted = |quote: char| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
        let value = if quoted('"') || quoted('\'') { &value[1..value.len() - 1] } else { value };
        if name.is_empty() {
            return Err(index + 1);
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_have_an_example() {
        let mut command = CheckArgs::augment_args(clap::Command::new("check"));
        command.clone().debug_assert();
        assert!(command.render_long_help().to_string().contains("outrigger check outrigger.yaml"));
    }

    #[test]
    fn env_files_are_read() {
        let variables = parse_env_file("# comment\n\nA=1\nexport B='two words'\nC=\"x=y\"\nD=\r\n").unwrap();
        for (name, value) in [("A", "1"), ("B", "two words"), ("C", "x=y"), ("D", "")] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(parse_env_file("A=1\nB").unwrap_err(), 2);
    }
}
