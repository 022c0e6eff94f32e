//! The configuration: text in, [`model::Config`] or every mistake out. No socket, file or clock.
//!
//! A text becomes a tree of nodes that know where they stand (`tree`), the tree what the file says (`decode`, `raw`),
//! and that what it means (`validate`, [`model`]). Each step goes on after a mistake, so that one run finds them all.
//!
//! A new key is a field of a type in `raw` with a doc comment, its meaning in `validate`, its place in the long form in
//! `effective`, and a line in `config/reference.yaml`. Where `later` names it, its line there goes.

pub mod diagnostics;
pub mod diff;
pub mod environment;
pub mod flags;
pub mod model;
pub mod render;
pub mod schema;
pub mod template;

mod address;
mod agent_address;
pub(crate) mod builtin;
mod decode;
mod dns_form;
mod effective;
mod findings;
mod given;
mod identity;
mod later;
mod name_pattern;
mod probe;
mod raw;
mod scalar;
mod short_form;
mod source;
mod syntax;
mod text;
mod tree;
mod units;
mod validate;

use std::fmt;
use std::path::{Path, PathBuf};

use diagnostics::Diagnostics;
use environment::{Environment, Expander, MissingVariables};
use findings::{Finding, Findings};
use model::Config;
use source::{Place, Source};
use tree::Tree;
use validate::NamedFile;

pub(crate) use agent_address::parse_agent_address;
pub(crate) use effective::as_json;
pub(crate) use raw::retries::grpc_word;
pub(crate) use text::{did_you_mean, listed, quote};
pub use tree::MAX_BYTES;
pub(crate) use units::write_size;

/// Reads a duration as it is written in the file, such as `1m30s`.
pub fn read_duration(text: &str) -> Option<std::time::Duration> {
    <units::Period as scalar::Scalar>::parse(text).ok().map(|period| period.0)
}

/// Writes a duration as it is read.
pub(crate) fn write_duration(duration: std::time::Duration) -> String {
    units::write_period(duration)
}

/// A file's name and bytes.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// For messages.
    pub name: &'a str,
    /// What is in it. Whoever reads it need not read more than [`MAX_BYTES`] and one.
    pub bytes: &'a [u8],
}

/// Something about a file that a configuration names.
#[derive(Debug, Clone)]
pub struct FileTrouble {
    /// As the configuration names it.
    pub path: PathBuf,
    /// The ends of the keys that it may stand at: one file may be named by several. Empty: any.
    pub keys: &'static [&'static str],
    /// In words.
    pub reason: String,
    /// Whether a start would fail by it.
    pub fatal: bool,
}

/// Reads the files of a configuration as a start does, and says what is wrong with them.
pub type TryFiles<'o> = dyn Fn(&Config) -> Vec<FileTrouble> + 'o;

/// How a document is looked at. The default refuses missing variables and looks for no files.
#[derive(Clone, Copy, Default)]
pub struct LoadOptions<'o> {
    /// Whether variables without a value and a default are a mistake.
    pub missing_variables: MissingVariables,
    /// Tells whether a file exists; without it, files that the configuration names are not looked for.
    pub file_exists: Option<&'o dyn Fn(&Path) -> bool>,
    /// Tells what is wrong with files that the configuration names and that are there.
    pub try_files: Option<&'o TryFiles<'o>>,
    /// What the command line says of `metrics`. What the file says goes over it, key by key.
    pub metrics: Option<&'o model::Metrics>,
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looks_for_files = self.file_exists.is_some();
        formatter
            .debug_struct("LoadOptions")
            .field("missing_variables", &self.missing_variables)
            .field("looks_for_files", &looks_for_files)
            .field("metrics", &self.metrics)
            .finish()
    }
}

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// What is probably not meant; no errors.
    pub warnings: Diagnostics,
    /// All of it in the long form, every default written out. Loading this gives the same `config`.
    pub effective: String,
    /// As it was written.
    pub text: String,
    /// Names the text: the same text has the same hash, in every version.
    pub hash: ContentHash,
}

/// Everything that can be said of a document.
#[derive(Debug, Clone)]
pub struct Report {
    /// Errors and warnings, in the order of their places.
    pub diagnostics: Diagnostics,
    /// Without errors, what the document means; `None` also where it depends on a variable that is not known.
    pub config: Option<Config>,
    /// Without errors, the long form.
    pub effective: Option<String>,
}

/// 64 bits of a text, by FNV-1a. Tells texts apart; keeps no one from making two of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(u64);

impl ContentHash {
    /// The hash of a text.
    pub fn of(bytes: &[u8]) -> Self {
        // Constants of FNV-1a for 64 bits (RFC 9923, section 5).
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        ContentHash(hash)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Loads a configuration.
///
/// # Errors
///
/// Every mistake in it, warnings included.
pub fn load(
    document: Document<'_>,
    environment: &dyn Environment,
    options: &LoadOptions<'_>,
) -> Result<Loaded, Diagnostics> {
    let report = examine(document, environment, options);
    match (report.config, report.effective) {
        (Some(config), Some(effective)) => {
            // What is no text has made no configuration.
            let text = String::from_utf8_lossy(document.bytes).into_owned();
            Ok(Loaded { config, warnings: report.diagnostics, effective, text, hash: ContentHash::of(document.bytes) })
        }
        _ => Err(report.diagnostics),
    }
}

/// What is said of a document that cannot be read.
pub(crate) fn unreadable(name: &str, error: &std::io::Error) -> Report {
    let mut findings = Findings::default();
    let place = Place { line: 1, column: 1, end: 2 };
    findings.push(Finding::error("unreadable", place, format!("the file cannot be read: {error}")));
    let diagnostics = Diagnostics::new(name, findings, &Source::new(""), None);
    Report { diagnostics, config: None, effective: None }
}

/// Where a proxy is asked that has begun with this document, whatever mistakes are elsewhere in it by now. `None` where
/// that cannot be told.
pub(crate) fn doors(
    document: Document<'_>,
    environment: &dyn Environment,
) -> Option<(model::Admin, Option<model::BindAddress>)> {
    let mut findings = Findings::default();
    let text = readable(document.bytes, &mut findings)?;
    let source = Source::new(text);
    let tree = Tree::parse(&source, text, &mut findings)?;
    let expander = Expander::new(environment, MissingVariables::Refuse);
    let raw = decode::decode::<raw::Configuration>(&tree, &expander, &mut findings)?;
    let told = raw.admin.is_absent() || raw.admin.get().is_some_and(raw::Admin::can_be_read);
    let (model, _) = validate::validate(&raw, &tree, &expander, None, &mut findings);
    told.then_some((model.admin, model.metrics.address))
}

/// Says everything that can be said of a document.
pub fn examine(document: Document<'_>, environment: &dyn Environment, options: &LoadOptions<'_>) -> Report {
    let mut findings = Findings::default();
    let text = readable(document.bytes, &mut findings);
    let source = Source::new(text.unwrap_or_default());
    let tree = text.and_then(|text| Tree::parse(&source, text, &mut findings));
    let mut config = None;
    let mut effective = None;
    if let Some(tree) = &tree {
        let expander = Expander::new(environment, options.missing_variables);
        if let Some(raw) = decode::decode::<raw::Configuration>(tree, &expander, &mut findings) {
            let (model, files) = validate::validate(&raw, tree, &expander, options.metrics, &mut findings);
            for file in &files {
                if options.file_exists.is_some_and(|exists| !exists(&file.path)) {
                    // As it is written: what variables hold is not shown.
                    let written = tree.written(file.node);
                    let full = std::path::absolute(written).ok().filter(|_| file.path.is_relative());
                    let full = full.map(|full| format!(" (it would be {})", full.display())).unwrap_or_default();
                    let reason = format!("{} {} does not exist{full}", file.what, text::quote(written));
                    findings.push(
                        Finding::error("missing-file", file.node, reason).hint("`--no-files` does not look for it"),
                    );
                }
            }
            if let Some(try_files) = options.try_files.filter(|_| !findings.has_errors()) {
                let paths = tree::Paths::of(tree);
                for trouble in try_files(&model) {
                    let named: Vec<_> = files.iter().filter(|file| file.path == trouble.path).collect();
                    let meant = |file: &&&NamedFile| {
                        let path = paths.path(file.node);
                        trouble.keys.iter().any(|key| path.ends_with(key))
                    };
                    let file = named.iter().find(meant).or(named.first());
                    let node = file.map_or(tree.root(), |file| file.node);
                    findings.push(if trouble.fatal {
                        let hint = "`--no-files` does not look into it";
                        Finding::error("unusable-file", node, trouble.reason).hint(hint)
                    } else {
                        let hint = "put a new one in its place: it is read without a restart";
                        Finding::warning("expiring-certificate", node, trouble.reason).hint(hint)
                    });
                }
            }
            if !findings.has_errors() {
                effective = Some(effective::write(&raw, &model.metrics, tree));
                config = (!expander.has_unknown()).then_some(model);
            }
        }
    }
    Report { diagnostics: Diagnostics::new(document.name, findings, &source, tree.as_ref()), config, effective }
}

/// The text of a file; `None` where it is none.
fn readable<'a>(bytes: &'a [u8], findings: &mut Findings) -> Option<&'a str> {
    let start = Place { line: 1, column: 1, end: 2 };
    let mut refuse = |finding: Finding| {
        findings.push(finding);
        None
    };
    if bytes.len() > MAX_BYTES {
        let reason = format!("the file is larger than {MAX_BYTES} bytes (1 MiB)");
        return refuse(
            Finding::error("too-large", start, reason)
                .hint("a configuration of a thousand routes has about 100 KiB: is this the right file?"),
        );
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refuse(Finding::error("encoding", start, "the file is UTF-16").hint("save it as UTF-8"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let place = Source::new(valid).place_of(error.valid_up_to());
            return refuse(
                Finding::error("encoding", place, "the file is not UTF-8 from here on").hint("save it as UTF-8"),
            );
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // YAML 1.2.2, section 5.1; NUL in particular would end the text for the parser.
    let forbidden = |character: char| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{85}');
    if let Some(offset) = text.find(forbidden) {
        let place = Source::new(text).place_of(offset);
        let code = text[offset..].chars().next().map_or(0, u32::from);
        return refuse(
            Finding::error("encoding", place, format!("the control character U+{code:04X} cannot be in YAML"))
                .hint("remove it; within double quotes it can be written as an escape"),
        );
    }
    Some(text)
}
