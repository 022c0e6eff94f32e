//! Bytes to a configuration that can be put in force.

use std::path::Path;
use std::sync::Arc;

use super::Refusal;
use crate::config::diagnostics::Diagnostics;
use crate::config::environment::Environment;
use crate::config::model::{Config, Metrics};
use crate::config::{ContentHash, Document, LoadOptions, Loaded, load};

/// A configuration that was accepted, with what people want to know of it.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) wording: Wording,
    /// With every default written out.
    pub(crate) effective: String,
    pub(crate) warnings: Diagnostics,
    pub(crate) config: Arc<Config>,
}

/// What is kept of a configuration that is not in force: enough to read it again, and some forty times smaller than what it
/// means. At most [`MAX_BYTES`](crate::config::MAX_BYTES), for no larger text is accepted.
#[derive(Debug, Clone)]
pub(crate) struct Wording {
    pub(crate) hash: ContentHash,
    pub(crate) text: Arc<str>,
    trust: Trust,
}

impl Accepted {
    pub(crate) fn new(loaded: Loaded, trust: Trust) -> Self {
        let Loaded { config, warnings, effective, hash, text } = loaded;
        let wording = Wording { hash, text: text.into(), trust };
        Accepted { wording, effective, warnings, config: Arc::new(config) }
    }

    pub(crate) fn hash(&self) -> ContentHash {
        self.wording.hash
    }
}

/// Who wrote a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Whoever may write this machine's files.
    Local,
    /// Whoever can reach us, or Consul.
    Network,
}

/// How documents are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// Variables that documents from the network may use.
    pub(crate) allowed: Vec<String>,
    /// What the command line says of `metrics`.
    pub(crate) metrics: Metrics,
}

impl Reading {
    /// Reads a document, beside the thread.
    pub(super) async fn read_beside(
        &self,
        name: String,
        bytes: Vec<u8>,
        trust: Trust,
    ) -> Result<Arc<Accepted>, Refusal> {
        let reading = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let loaded = reading.read(&name, &bytes, trust)?;
            Ok(Arc::new(Accepted::new(loaded, trust)))
        });
        reading.await.map_err(|_| Refusal::Internal)?.map_err(Refusal::Invalid)
    }

    /// Reads what was accepted before, beside the thread. Files that it names are not looked for: where one has gone that
    /// another generation still uses, there is nothing against it.
    pub(super) async fn read_again(&self, name: String, wording: Wording) -> Result<Arc<Accepted>, Refusal> {
        let reading = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let document = Document { name: &name, bytes: wording.text.as_bytes() };
            let options = LoadOptions { file_exists: None, ..reading.options() };
            let loaded = reading.load(document, wording.trust, &options)?;
            let Loaded { config, warnings, effective, .. } = loaded;
            Ok(Arc::new(Accepted { wording, effective, warnings, config: Arc::new(config) }))
        });
        reading.await.map_err(|_| Refusal::Internal)?.map_err(Refusal::Invalid)
    }

    /// Reads a document; one from the network may use only the allowed variables.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn read(&self, name: &str, bytes: &[u8], trust: Trust) -> Result<Loaded, Diagnostics> {
        self.load(Document { name, bytes }, trust, &self.options())
    }

    fn options(&self) -> LoadOptions<'_> {
        LoadOptions { file_exists: Some(&Path::exists), metrics: Some(&self.metrics), ..LoadOptions::default() }
    }

    fn load(&self, document: Document<'_>, trust: Trust, options: &LoadOptions<'_>) -> Result<Loaded, Diagnostics> {
        match trust {
            Trust::Local => load(document, &process_variable, options),
            Trust::Network => load(document, &Allowed(&self.allowed), options),
        }
    }
}

fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The variables that somebody far away may see. Another one could tell them a secret, by sending it somewhere.
struct Allowed<'a>(&'a [String]);

impl Environment for Allowed<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        process_variable(name)
    }

    fn refusal(&self, name: &str) -> Option<(String, String)> {
        let allowed = self.0.iter().any(|allowed| allowed == name);
        (!allowed).then(|| {
            let reason = format!("a configuration that comes over the network may not use the variable `{name}`");
            (reason, format!("`outrigger run --allow-env {name}` allows it"))
        })
    }
}
