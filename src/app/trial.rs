//! What a start would fail at besides the configuration's text: files that are there and cannot be used. And what it would
//! not fail at, but whoever calls: certificates that have ended.

use std::fs::OpenOptions;
use std::time::SystemTime;

use crate::admin;
use crate::config::FileTrouble;
use crate::config::model::{Config, LogTarget};
use crate::identity::{self, FileError};
use crate::telemetry::clock;

/// Reads certificates, keys and tokens as a start does, and looks whether the access log's file can be written. Changes
/// nothing.
pub(crate) fn try_files(config: &Config) -> Vec<FileTrouble> {
    let identities = identity::Store::default();
    let servers = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let servers: Vec<_> = servers.map(|tls| identities.server(tls)).collect();
    let clients = config.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
    let clients: Vec<_> = clients.map(|tls| identities.client(tls)).collect();
    let now = clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let expiries = identities.expiries();
    let ends = expiries.into_iter().filter_map(|expiry| {
        let reason = expiry.warning(now)?;
        Some(FileTrouble { path: expiry.file, keys: &["cert_file"], reason, fatal: false })
    });
    let unusable = |error: &FileError| {
        let path = error.path()?.to_owned();
        Some(FileTrouble { path, keys: error.keys(), reason: error.to_string(), fatal: true })
    };
    let servers = servers.iter().filter_map(|server| unusable(server.as_ref().err()?));
    let clients = clients.iter().filter_map(|client| unusable(client.as_ref().err()?));
    let mut troubles: Vec<FileTrouble> = ends.chain(servers).chain(clients).collect();
    if let Some(path) = &config.admin.token_file
        && let Err(error) = admin::try_token(path)
    {
        let reason = format!("cannot read the admin token {}: {error}", path.display());
        troubles.push(FileTrouble { path: path.clone(), keys: &["admin.token_file"], reason, fatal: true });
    }
    if let LogTarget::File(path) = &config.telemetry.access_log.target
        && (path.is_file() || path.is_dir())
        && let Err(error) = OpenOptions::new().append(true).open(path)
    {
        let reason = format!("cannot open the access log {}: {error}", path.display());
        // What is known of it is its folder.
        let path = path.parent().map(ToOwned::to_owned).unwrap_or_default();
        troubles.push(FileTrouble { path, keys: &["access_log.path"], reason, fatal: true });
    }
    troubles
}
