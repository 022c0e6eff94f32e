//! Regular expressions, bounded in size and number.

use regex::{Regex, RegexBuilder};

use super::Validator;
use crate::config::environment::is_hidden;
use crate::config::findings::Finding;
use crate::config::given::Spanned;
use crate::config::text::quote;
use crate::config::units::Text;

/// Memory of one compiled expression. Paths and values of headers need a tenth; `\w+@\w+` needs twice as much.
const SMALL_BYTES: usize = 64 << 10;
/// Memory of one of the few that may be large: `\w{1,20}` takes that, and 8 ms to compile.
const LARGE_BYTES: usize = 1 << 20;
/// Large expressions in a file.
const MOST_LARGE: usize = 32;
/// Expressions in a file. This many hostile ones take about a second.
const MOST: usize = 1_000;
/// Longest expression, in bytes.
const LONGEST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Patterns {
    made: usize,
    large: usize,
}

impl Validator<'_> {
    /// An expression that the whole text must match.
    pub(super) fn whole(&mut self, text: &Spanned<Text>) -> Option<Regex> {
        self.compile(text, &format!(r"\A(?:{})\z", text.value.0))
    }

    /// An expression that a part of the text must match.
    pub(super) fn anywhere(&mut self, text: &Spanned<Text>) -> Option<Regex> {
        self.compile(text, &text.value.0)
    }

    fn compile(&mut self, text: &Spanned<Text>, pattern: &str) -> Option<Regex> {
        self.patterns.made += 1;
        if self.patterns.made > MOST {
            let reason = format!("more than {MOST} regular expressions in one file");
            self.error("invalid-regex", text.node, reason, "prefixes and exact values do for most");
            return None;
        }
        if text.value.0.len() > LONGEST {
            let reason = format!("a regular expression is at most {LONGEST} bytes long");
            self.error("invalid-regex", text.node, reason, "");
            return None;
        }
        match self.build(&text.value.0, pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                self.explain(text, &error);
                None
            }
        }
    }

    fn build(&mut self, alone: &str, pattern: &str) -> Result<Regex, regex::Error> {
        let limited = |pattern: &str, bytes: usize| {
            RegexBuilder::new(pattern).size_limit(bytes).dfa_size_limit(LARGE_BYTES).build()
        };
        // What is wrong alone can be right in a group, as `a)|(b` is. It is parsed before its size is looked at.
        if let Err(error @ regex::Error::Syntax(_)) = limited(alone, 0) {
            return Err(error);
        }
        match limited(pattern, SMALL_BYTES) {
            Err(regex::Error::CompiledTooBig(_)) if self.patterns.large < MOST_LARGE => {
                self.patterns.large += 1;
                limited(pattern, LARGE_BYTES)
            }
            result => result,
        }
    }

    fn explain(&mut self, text: &Spanned<Text>, error: &regex::Error) {
        let shown = self.shown(text.node);
        let finding = match error {
            regex::Error::CompiledTooBig(_) => {
                let reason = format!("the regular expression {shown} needs too much memory");
                Finding::error("invalid-regex", text.node, reason)
                    .hint("`[0-9a-z]` needs far less than `\\w`, and `+` less than `{1,99}`")
            }
            _ if is_hidden(self.tree.written(text.node)) => {
                Finding::error("invalid-regex", text.node, format!("what {shown} holds is not a regular expression"))
            }
            error => {
                let reason = format!("{shown} is not a regular expression: {}", last_line(error));
                let star = text.value.0.starts_with('*');
                let hint = star.then(|| "`.*` stands for any text".to_owned());
                Finding::error("invalid-regex", text.node, reason).maybe_hint(hint)
            }
        };
        self.push(finding);
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
