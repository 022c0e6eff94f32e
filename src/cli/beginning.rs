//! What a proxy starts with: what its source holds or, where that is no configuration, the last that was one.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use super::exit;
use crate::app::Builder;
use crate::config::diagnostics::Diagnostics;
use crate::config::model::Metrics;
use crate::config::render::{Format, render};
use crate::config::{ContentHash, Document, LoadOptions, Loaded, load};

/// Where the configuration is.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Made from the command line.
    Flags(String),
    File(PathBuf),
}

/// Reads it; on an error, what is wrong has been printed.
pub(super) fn builder(origin: &Origin, last_good: Option<&Path>, metrics: &Metrics) -> Result<Builder, u8> {
    let (name, text) = match origin {
        Origin::Flags(text) => ("flags".to_owned(), Ok(text.clone().into_bytes())),
        Origin::File(path) => {
            let name = path.display().to_string();
            let text = super::check::read(path, &mut std::io::stdin());
            (name.clone(), text.map_err(|error| format!("cannot read {name}: {error}")))
        }
    };
    let wrong = match &text {
        Ok(bytes) => match read(&name, bytes, metrics) {
            Ok(loaded) => return Ok(follow(Builder::new(loaded, name), origin).metrics(metrics.clone())),
            Err(diagnostics) => diagnostics.to_string(),
        },
        Err(error) => error.clone(),
    };
    let Some(path) = last_good else {
        if text.is_err() {
            return Err(exit::fault(&wrong));
        }
        return Err(exit::FAULT);
    };
    if text.is_err() {
        exit::fault(&wrong);
    }
    let kept = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| exit::fault(&format!("and the last good one is not there: {kept}: {error}")))?;
    let loaded = read(&kept, &bytes, metrics).map_err(|_| exit::FAULT)?;
    let hash = ContentHash::of(text.as_deref().unwrap_or_default());
    Ok(follow(Builder::new(loaded, name), origin).metrics(metrics.clone()).instead_of(hash, wrong))
}

fn follow(builder: Builder, origin: &Origin) -> Builder {
    match origin {
        // What came by standard input is over.
        Origin::File(path) if path != Path::new("-") => builder.follow_file(path),
        Origin::File(_) | Origin::Flags(_) => builder,
    }
}

fn read(name: &str, bytes: &[u8], metrics: &Metrics) -> Result<Loaded, Diagnostics> {
    let environment = |variable: &str| std::env::var(variable).ok();
    let options = LoadOptions { file_exists: Some(&Path::exists), metrics: Some(metrics), ..LoadOptions::default() };
    let loaded = load(Document { name, bytes }, &environment, &options);
    let diagnostics = match &loaded {
        Ok(loaded) => &loaded.warnings,
        Err(diagnostics) => diagnostics,
    };
    if !diagnostics.is_empty() {
        let mut stderr = std::io::stderr();
        let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let _ = stderr.write_all(render(diagnostics, Format::Text, colours).as_bytes());
    }
    loaded
}
