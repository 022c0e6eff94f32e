//! What a start would fail at besides the configuration's text: files that are there and cannot be used.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use crate::admin;
use crate::config::model::{Config, LogTarget};
use crate::identity;

/// A file that the configuration names, and why it is of no use.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// As the configuration names it.
    pub(crate) path: PathBuf,
    /// In words.
    pub(crate) reason: String,
}

/// Reads certificates, keys and tokens as a start does, and looks whether the access log's file can be written. Changes
/// nothing.
pub(crate) fn unusable_files(config: &Config) -> Vec<Unusable> {
    let identities = identity::Store::default();
    let servers = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let servers = servers.filter_map(|tls| identities.server(tls).err());
    let clients = config.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
    let clients = clients.filter_map(|tls| identities.client(tls).err());
    let mut unusable: Vec<Unusable> = servers
        .chain(clients)
        .filter_map(|error| Some(Unusable { path: error.path()?.to_owned(), reason: error.to_string() }))
        .collect();
    if let Some(path) = &config.admin.token_file
        && let Err(error) = admin::try_token(path)
    {
        let reason = format!("cannot read the admin token {}: {error}", path.display());
        unusable.push(Unusable { path: path.clone(), reason });
    }
    if let LogTarget::File(path) = &config.telemetry.access_log.target
        && (path.is_file() || path.is_dir())
        && let Err(error) = OpenOptions::new().append(true).open(path)
    {
        let reason = format!("cannot open the access log {}: {error}", path.display());
        // What is known of it is its folder.
        unusable.push(Unusable { path: path.parent().map(Path::to_owned).unwrap_or_default(), reason });
    }
    unusable
}
