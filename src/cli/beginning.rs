//! What a proxy starts with: what its source holds or, where that is no configuration, the last that was one.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use super::{exit, flags};
use crate::app::Builder;
use crate::config::diagnostics::Diagnostics;
use crate::config::render::{Format, render};
use crate::config::{ContentHash, Loaded};
use crate::reload::document::{Reading, Trust};
use crate::reload::kv;

/// Where the configuration is.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Made from the command line.
    Flags(String),
    File(PathBuf),
    /// A key in Consul's KV store.
    ConsulKv(String),
}

impl Origin {
    /// What `--config` names: `consul-kv://KEY`, or else a file.
    pub(super) fn named(config: &Path) -> Self {
        match config.to_str().and_then(|config| config.strip_prefix("consul-kv://")) {
            Some(key) => Origin::ConsulKv(key.to_owned()),
            None => Origin::File(config.to_owned()),
        }
    }
}

/// Reads it; on an error, what is wrong has been printed.
pub(super) fn builder(origin: &Origin, last_good: Option<&Path>, reading: &Reading) -> Result<Builder, u8> {
    let (name, text) = match origin {
        Origin::Flags(text) => ("flags".to_owned(), Ok(text.clone().into_bytes())),
        Origin::File(path) => {
            let name = path.display().to_string();
            let text = super::check::read(path, &mut std::io::stdin());
            (name.clone(), text.map_err(|error| format!("cannot read {name}: {error}")))
        }
        Origin::ConsulKv(key) => {
            let name = format!("consul-kv://{key}");
            let text = kv::read_for_start(key, &|why| exit::warning(&format!("{name}: {why}")));
            (name.clone(), text.map_err(|error| format!("cannot read {name}: {error}")))
        }
    };
    let (wrong, refused) = match &text {
        Ok(bytes) => match read(&name, bytes, origin, reading) {
            Ok(loaded) => return Ok(follow(Builder::new(loaded, name), origin).metrics(reading.metrics.clone())),
            // A file that is missing may come, and nobody will change a text that is right.
            Err(diagnostics) if diagnostics.may_pass() => (diagnostics.to_string(), None),
            Err(diagnostics) => (diagnostics.to_string(), Some(ContentHash::of(bytes))),
        },
        Err(error) => (error.clone(), None),
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
    let loaded = read(&kept, &bytes, origin, reading).map_err(|_| exit::FAULT)?;
    Ok(follow(Builder::new(loaded, name), origin).metrics(reading.metrics.clone()).instead_of(refused, wrong, path))
}

fn follow(builder: Builder, origin: &Origin) -> Builder {
    match origin {
        // What came by standard input is over.
        Origin::File(path) if path != Path::new("-") => builder.follow_file(path),
        Origin::File(_) | Origin::Flags(_) => builder,
        Origin::ConsulKv(key) => builder.follow_consul_kv(key),
    }
}

fn read(name: &str, bytes: &[u8], origin: &Origin, reading: &Reading) -> Result<Loaded, Diagnostics> {
    let trust = match origin {
        Origin::Flags(_) | Origin::File(_) => Trust::Local,
        Origin::ConsulKv(_) => Trust::Network,
    };
    let loaded = reading.read(name, bytes, trust);
    let diagnostics = match &loaded {
        Ok(loaded) => &loaded.warnings,
        Err(diagnostics) => diagnostics,
    };
    if let Origin::Flags(_) = origin {
        flags::tell(diagnostics, &mut std::io::stderr());
    } else if !diagnostics.is_empty() {
        let mut stderr = std::io::stderr();
        let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let _ = stderr.write_all(render(diagnostics, Format::Text, colours).as_bytes());
    }
    loaded
}
