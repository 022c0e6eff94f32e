//! Writing YAML that every reader of it understands alike.

use std::borrow::Cow;

use crate::config::scalar::Scalar;
use crate::config::text::is_invisible;
use crate::config::units::{Period, Size};
use crate::runtime::pace::breathe;

/// A text in double quotes, as JSON and YAML both read it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    push_quoted(text, &mut quoted);
    quoted
}

fn push_quoted(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            character if character.is_control() || is_invisible(character) => {
                // All of them are below U+10000.
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

/// A key and its value; what is ours of it need not be copied.
pub(super) type Entry = (Cow<'static, str>, Yaml);

/// A piece of YAML to write.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Yaml {
    Text(Cow<'static, str>),
    /// That looks like a number, and is none.
    Quoted(Cow<'static, str>),
    List(Vec<Yaml>),
    Map(Vec<Entry>),
    /// A line that says what holds where a key has no word for it.
    Comment(String),
}

impl Yaml {
    pub(super) fn quoted(self) -> Self {
        match self {
            Yaml::Text(text) => Yaml::Quoted(text),
            other => other,
        }
    }

    /// Writes it, and lets go of each piece on the way: that takes as long.
    pub(super) fn write(self, indent: usize, out: &mut String) {
        match self {
            Yaml::Text(text) => push_scalar(&text, out),
            Yaml::Quoted(text) => push_quoted(&text, out),
            Yaml::Comment(_) => {}
            Yaml::List(items) if items.is_empty() => out.push_str("[]"),
            Yaml::List(items) if items.iter().all(|item| matches!(item, Yaml::Text(_))) => {
                out.push('[');
                for (index, item) in items.into_iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    item.write(indent, out);
                }
                out.push(']');
            }
            Yaml::List(items) => {
                for item in items {
                    begin_line(indent, out);
                    out.push_str("- ");
                    item.write(indent + 1, out);
                }
            }
            Yaml::Map(entries) if entries.is_empty() => out.push_str("{}"),
            Yaml::Map(entries) => {
                for (key, value) in entries {
                    breathe();
                    begin_line(indent, out);
                    if let Yaml::Comment(comment) = value {
                        out.push_str(&format!("# {key}: {comment}"));
                        continue;
                    }
                    push_scalar(&key, out);
                    out.push(':');
                    if value.is_inline() {
                        out.push(' ');
                    }
                    value.write(indent + 1, out);
                }
                if indent == 0 {
                    out.push('\n');
                }
            }
        }
    }

    fn is_inline(&self) -> bool {
        match self {
            Yaml::Text(_) | Yaml::Quoted(_) | Yaml::Comment(_) => true,
            Yaml::List(items) => items.iter().all(|item| matches!(item, Yaml::Text(_))),
            Yaml::Map(entries) => entries.is_empty(),
        }
    }
}

/// A new line, unless this one has only begun, as after `- `.
fn begin_line(indent: usize, out: &mut String) {
    if out.is_empty() || out.ends_with("- ") {
        return;
    }
    out.push('\n');
    (0..indent).for_each(|_| out.push_str("  "));
}

/// A text as a scalar, without quotes only where nobody could read it as something else.
fn push_scalar(text: &str, out: &mut String) {
    const WORDS: [&str; 9] = ["null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    let plain = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
        && (!text.starts_with(|first: char| first.is_ascii_digit()) || is_number(text));
    if plain { out.push_str(text) } else { push_quoted(text, out) }
}

/// True where what begins with a digit is a number, or one with a unit, to everybody: `1e3`, `0x1f` and `0b1` are numbers
/// to some readers only, `010` is 8 to some.
fn is_number(text: &str) -> bool {
    let whole = text.parse::<u32>().is_ok_and(|number| number.to_string() == text);
    let decimal = || text.parse::<f64>().is_ok_and(|number| number.to_string() == text);
    let unit = || !text.starts_with('0') && (Period::parse(text).is_ok() || Size::parse(text).is_ok());
    whole || (text.contains('.') && decimal()) || unit()
}
