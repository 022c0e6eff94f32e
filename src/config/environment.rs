//! `${VAR}`, `${VAR:-default}` and `$$` in values.
//!
//! They are filled in after the text has become a tree, so that no variable can add keys, and what they hold is kept
//! beside what is written, so that only the latter is ever shown. `:-` takes the default for a variable that is unset
//! or empty, as shells do. The default reaches to the first `}` and is taken as it stands. A `$` before anything else
//! is a `$`: regular expressions need no care.

use std::borrow::Cow;
use std::cell::Cell;

use super::text::quote;

/// All values together may grow to this: four times the largest file.
const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// Where variables come from. The configuration never looks at the process's environment itself.
pub trait Environment {
    /// What a variable holds; `None` where it is not set.
    fn variable(&self, name: &str) -> Option<String>;

    /// Why this variable must not be used: the reason and a hint.
    fn refusal(&self, _name: &str) -> Option<(String, String)> {
        None
    }
}

impl<F: Fn(&str) -> Option<String>> Environment for F {
    fn variable(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// What to do with a variable that is not set and has no default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingVariables {
    /// It is a mistake.
    #[default]
    Refuse,
    /// What depends on it is not checked.
    Allow,
}

/// Fills in variables.
pub(crate) struct Expander<'e> {
    environment: &'e dyn Environment,
    missing: MissingVariables,
    bytes: Cell<usize>,
    unknown: Cell<bool>,
}

/// Why a value is not known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unexpanded {
    /// A variable is not set, and that is allowed.
    Unknown,
    /// A mistake: the reason and a hint.
    Wrong(String, String),
}

impl<'e> Expander<'e> {
    pub(crate) fn new(environment: &'e dyn Environment, missing: MissingVariables) -> Self {
        Expander { environment, missing, bytes: Cell::new(0), unknown: Cell::new(false) }
    }

    /// What a value means, from what is written.
    pub(crate) fn expand<'t>(&self, written: &'t str) -> Result<Cow<'t, str>, Unexpanded> {
        if !written.contains('$') {
            return Ok(Cow::Borrowed(written));
        }
        let expanded = self.fill(written, false).inspect_err(|error| {
            if *error == Unexpanded::Unknown {
                self.unknown.set(true);
            }
        })?;
        self.bytes.set(self.bytes.get() + expanded.len());
        if self.bytes.get() > MAX_EXPANDED_BYTES {
            let reason = format!("the variables of this file hold more than {MAX_EXPANDED_BYTES} bytes");
            return Err(Unexpanded::Wrong(reason, "use fewer or smaller ones".to_owned()));
        }
        Ok(Cow::Owned(expanded))
    }

    /// Whether some value was not known.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown.get()
    }

    /// What a value means in which `%` has a meaning: in what variables hold it has none, so there it is doubled.
    pub(crate) fn expand_template(&self, written: &str) -> Option<String> {
        self.fill(written, true).ok()
    }

    fn fill(&self, text: &str, template: bool) -> Result<String, Unexpanded> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            expanded.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let Some((inside, after)) = after.split_once('}') else {
                    return Err(Unexpanded::Wrong(
                        "`${` without a `}`".to_owned(),
                        "for a literal `${` write `$${`".to_owned(),
                    ));
                };
                match self.variable(inside)? {
                    Cow::Owned(value) if template => expanded.push_str(&value.replace('%', "%%")),
                    value => expanded.push_str(&value),
                }
                rest = after;
            } else {
                expanded.push('$');
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn variable<'t>(&self, inside: &'t str) -> Result<Cow<'t, str>, Unexpanded> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            let reason = format!("{} does not name an environment variable", quote(&format!("${{{inside}}}")));
            let hint = "it is `${NAME}` or `${NAME:-default}`; for a literal `${` write `$${`";
            return Err(Unexpanded::Wrong(reason, hint.to_owned()));
        }
        if default.is_some_and(is_hidden) {
            let reason =
                format!("the default of {} would be another variable, and ends at the first `}}`", quote(name));
            return Err(Unexpanded::Wrong(reason, "write a default without variables".to_owned()));
        }
        if let Some((reason, hint)) = self.environment.refusal(name) {
            return Err(Unexpanded::Wrong(reason, hint));
        }
        match (self.environment.variable(name), default) {
            (Some(value), None) => Ok(Cow::Owned(value)),
            (Some(value), Some(_)) if !value.is_empty() => Ok(Cow::Owned(value)),
            (_, Some(default)) => Ok(Cow::Borrowed(default)),
            (None, None) if self.missing == MissingVariables::Allow => Err(Unexpanded::Unknown),
            (None, None) => {
                let reason = format!("the environment variable {} is not set", quote(name));
                let hint = format!("set it, or write `${{{name}:-default}}`; for a literal `${{` write `$${{`");
                Err(Unexpanded::Wrong(reason, hint))
            }
        }
    }
}

/// Whether a value as written comes from variables, so that its meaning must not be shown.
pub(crate) fn is_hidden(written: &str) -> bool {
    written.replace("$$", "").contains("${")
}

/// A text as it must be written so that [`expand`] leaves it as it is.
pub(crate) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, Unexpanded> {
        let environment = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Expander::new(&environment, MissingVariables::Refuse).expand(text).map(Cow::into_owned)
    }

    #[test]
    fn variables_defaults_and_dollars() {
        for (text, expected) in [
            ("127.0.0.1:${PORT}", "127.0.0.1:8080"),
            ("${HOST:-localhost}:${PORT}", "localhost:8080"),
            ("${EMPTY:-x}${EMPTY}", "x"),
            ("$${PORT}", "${PORT}"),
            ("^/a$|$1$", "^/a$|$1$"),
            ("$$$$", "$$"),
            ("${NONE:-}", ""),
            ("${NONE:-a$$b}", "a$$b"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_variables_hold_is_no_template() {
        let environment = |_: &str| Some("a%%b%{foo}".to_owned());
        let expander = Expander::new(&environment, MissingVariables::Refuse);
        let filled = expander.expand_template("%{route} ${A} 1% $${A}").unwrap();
        assert_eq!(filled, "%{route} a%%%%b%%{foo} 1% ${A}");
    }

    #[test]
    fn what_is_not_a_variable_is_refused() {
        for text in ["${NONE}", "${PORT", "${1}", "${}", "a${PORT}${NONE}", "${NONE:-${PORT:-c}}"] {
            assert!(matches!(fill(text), Err(Unexpanded::Wrong(..))), "{text}");
        }
        let nothing = |_: &str| None;
        assert_eq!(Expander::new(&nothing, MissingVariables::Allow).expand("${NONE}"), Err(Unexpanded::Unknown));
    }

    #[test]
    fn many_large_variables_are_refused() {
        let large = |_: &str| Some("x".repeat(MAX_EXPANDED_BYTES / 2));
        let expander = Expander::new(&large, MissingVariables::Refuse);
        assert!(expander.expand("${A}").is_ok());
        assert!(expander.expand("${A}${A}").is_err());
    }

    #[test]
    fn only_values_with_variables_are_hidden() {
        assert!(is_hidden("${A}") && is_hidden("$$${A}"));
        assert!(!is_hidden("$1") && !is_hidden("$${A}"));
    }

    proptest::proptest! {
        #[test]
        fn an_escaped_text_stays_itself(text in "[a${}-]{0,12}") {
            proptest::prop_assert_eq!(fill(&escape(&text)), Ok(text));
        }
    }
}
