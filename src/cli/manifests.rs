//! Manifests in and out, for the commands that change them.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use super::exit;
use crate::kubernetes::{Outcome, SyntaxError};

/// Most that is read. A cluster's whole export may be large, and one file of a terabyte is a mistake.
const MAX_BYTES: u64 = 256 << 20;

/// Changes files, or standard input where there are none, and writes them to `output` as one stream. Where anything is
/// wrong, nothing is written: what comes out may be piped into a cluster.
pub(super) fn change(
    files: &[PathBuf],
    output: &mut dyn Write,
    mut change: impl FnMut(&str) -> Result<Outcome, SyntaxError>,
) -> io::Result<u8> {
    let standard_input = [PathBuf::from("-")];
    let files = if files.is_empty() { &standard_input } else { files };
    let mut stream = String::new();
    let mut failed = false;
    for file in files {
        let name = if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() };
        let text = match read(file) {
            Ok(text) => text,
            Err(error) => return Ok(exit::fault(&format!("{name} cannot be read: {error}"))),
        };
        let outcome = match change(&text) {
            Ok(outcome) => outcome,
            Err(error) => {
                let helm =
                    if text.contains("{{") { "; of Helm's templates, take what `helm template` prints" } else { "" };
                return Ok(exit::fault(&format!("{name} is no YAML: {error}{helm}")));
            }
        };
        for note in &outcome.notes {
            failed |= note.error;
            let word = if note.error { "error" } else { "note" };
            writeln!(io::stderr(), "{word}: {name}: {}", note.text)?;
        }
        if !stream.is_empty() && !outcome.text.starts_with("---") {
            stream.push_str(if stream.ends_with('\n') { "---\n" } else { "\n---\n" });
        }
        stream.push_str(&outcome.text);
    }
    if failed {
        return Ok(exit::FAULT);
    }
    output.write_all(stream.as_bytes())?;
    Ok(exit::DONE)
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().take(MAX_BYTES).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(MAX_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}
