//! A configuration from flags alone, and values of flags that are written as in a file.

use std::time::Duration;

use super::effective::quoted;
use super::environment;
use super::model::{BindAddress, Network, ProbeTarget};
use super::raw::listener::Cidr;
use super::scalar::{Invalid, Scalar as _};
use super::units::{Period, Size};
use super::validate::is_probe_name;

/// The text of a configuration with one listener and one upstream: `run --listen ADDR --upstream ADDR`. It is loaded
/// like any other, so flags and files cannot differ in meaning.
pub fn text(listen: &[String], upstream: &str, admin: Option<&str>) -> String {
    let value = |text: &str| quoted(&environment::escape(text));
    let admin = admin.map(|address| format!("admin: {{ address: {} }}\n", value(address)));
    let mut text = format!("{}listeners:\n", admin.unwrap_or_default());
    for (index, address) in listen.iter().enumerate() {
        let name = if index == 0 { "main".to_owned() } else { format!("main-{}", index + 1) };
        text.push_str(&format!("  {name}:\n    address: {}\n    upstream: {}\n", value(address), value(upstream)));
    }
    text
}

/// A duration as a file has it: `500ms`, `1m30s`.
///
/// # Errors
///
/// A sentence, where it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    Period::parse(text).map(|period| period.0).map_err(sentence)
}

/// A size as a file has it: `512`, `64KiB`.
///
/// # Errors
///
/// A sentence, where it is none.
pub fn size(text: &str) -> Result<u64, String> {
    Size::parse(text).map(|size| size.0).map_err(sentence)
}

/// An address to listen on, from an argument.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn bind_address(text: &str) -> Result<BindAddress, String> {
    BindAddress::parse(text).map_err(sentence)
}

/// A probe's name and what it asks, from an argument: `app/readiness=http://127.0.0.1:8080/healthz`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn probe(text: &str) -> Result<(String, ProbeTarget), String> {
    let (name, target) = text.split_once('=').ok_or("write it as NAME=URL")?;
    if !is_probe_name(name) {
        return Err(format!("`{name}` is not a name of a probe, such as `app/readiness`"));
    }
    Ok((name.to_owned(), ProbeTarget::parse(target).map_err(sentence)?))
}

/// A network, from an argument: `10.0.0.0/8`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn network(text: &str) -> Result<Network, String> {
    Cidr::parse(text).map(|network| network.0).map_err(sentence)
}

fn sentence(invalid: Invalid) -> String {
    match invalid.hint {
        Some(hint) => format!("{}; {hint}", invalid.detail),
        None => invalid.detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, LoadOptions, load};

    fn load_flags(
        listen: &[&str],
        upstream: &str,
    ) -> Result<crate::config::Loaded, crate::config::diagnostics::Diagnostics> {
        let listen: Vec<String> = listen.iter().map(|address| (*address).to_owned()).collect();
        let text = text(&listen, upstream, None);
        load(Document { name: "flags", bytes: text.as_bytes() }, &|_: &str| None, &LoadOptions::default())
    }

    #[test]
    fn flags_are_a_configuration() {
        let loaded = load_flags(&[":15006", "127.0.0.1:15001"], "127.0.0.1:8080").unwrap();
        assert_eq!(loaded.config.listeners.len(), 2);
        assert_eq!(loaded.config.upstreams.len(), 1);
    }

    #[test]
    fn flags_cannot_add_keys_or_name_variables() {
        for listen in ["\"\n  x: 1", "${HOME}", "a: b", "*a"] {
            let diagnostics = load_flags(&[listen], "127.0.0.1:8080").unwrap_err();
            assert_eq!(
                diagnostics.list.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>(),
                ["invalid-value"],
                "{listen}"
            );
        }
    }
}
