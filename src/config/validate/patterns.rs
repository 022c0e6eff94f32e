//! Regular expressions, bounded in size and number.

use regex::{Regex, RegexBuilder};

use super::Validator;
use crate::config::environment::is_hidden;
use crate::config::findings::Finding;
use crate::config::given::Spanned;
use crate::config::text::quote;
use crate::config::units::Text;

/// Memory of one compiled expression: enough for `\w{1,200}`, too little to stall a start.
const MOST_COMPILED_BYTES: usize = 1 << 20;
/// Longest expression.
const LONGEST: usize = 1_024;
/// Expressions in a file.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Patterns {
    made: usize,
}

impl Validator<'_> {
    /// An expression that the whole text must match.
    pub(super) fn whole(&mut self, text: &Spanned<Text>) -> Option<Regex> {
        // Alone first: `a)|(b` is wrong, and would be right in the group.
        self.anywhere(text)?;
        self.patterns.made -= 1;
        self.compile(text, &format!(r"\A(?:{})\z", text.value.0))
    }

    /// An expression that a part of the text must match.
    pub(super) fn anywhere(&mut self, text: &Spanned<Text>) -> Option<Regex> {
        self.compile(text, &text.value.0)
    }

    fn compile(&mut self, text: &Spanned<Text>, pattern: &str) -> Option<Regex> {
        self.patterns.made += 1;
        if self.patterns.made > MOST {
            self.error(
                "invalid-regex",
                text.node,
                format!("more than {MOST} regular expressions in one file"),
                "use prefixes and exact values where they do",
            );
            return None;
        }
        if text.value.0.len() > LONGEST {
            self.error("invalid-regex", text.node, format!("a regular expression is at most {LONGEST} bytes long"), "");
            return None;
        }
        match RegexBuilder::new(pattern).size_limit(MOST_COMPILED_BYTES).dfa_size_limit(MOST_COMPILED_BYTES).build() {
            Ok(regex) => Some(regex),
            Err(error) => {
                let shown = self.shown(text.node);
                let reason = match error {
                    regex::Error::CompiledTooBig(_) => format!("the regular expression {shown} needs too much memory"),
                    _ if is_hidden(self.tree.written(text.node)) => {
                        format!("what {shown} holds is not a regular expression")
                    }
                    error => format!("{shown} is not a regular expression: {}", last_line(&error)),
                };
                let hint = (text.value.0.starts_with('*') || text.value.0.contains("/*"))
                    .then(|| "`.*` stands for any text".to_owned());
                self.push(Finding::error("invalid-regex", text.node, reason).maybe_hint(hint));
                None
            }
        }
    }

    /// Checks that the groups which a replacement names are there.
    pub(super) fn replacement(&mut self, text: &Spanned<Text>, pattern: &Regex) {
        let mut rest = text.value.0.as_str();
        while let Some(dollar) = rest.find('$') {
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
                continue;
            }
            let name = match rest.strip_prefix('{') {
                Some(braced) => braced.split('}').next().unwrap_or_default(),
                None => {
                    let end = rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
                    &rest[..end.unwrap_or(rest.len())]
                }
            };
            let known = match name.parse::<usize>() {
                Ok(number) => number < pattern.captures_len(),
                Err(_) => name.is_empty() || pattern.capture_names().flatten().any(|group| group == name),
            };
            if !known && !is_hidden(self.tree.written(text.node)) {
                let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
                let hint = if digits.is_empty() || digits == name {
                    "groups count from `$1`; a literal `$` is `$$$$`".to_owned()
                } else {
                    format!("did you mean `$${{{digits}}}{}`?", &name[digits.len()..])
                };
                let reason = format!("the pattern has no group {}", quote(name));
                return self.push(Finding::error("invalid-value", text.node, reason).hint(hint));
            }
        }
    }
}

/// The regex crate draws the expression; its last line says what is wrong.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
