//! The long form read back, as far as somebody looks: parts of the text that know their form.
//!
//! Only what the writer beside this writes is read: a level is two spaces deep, what has parts stands on lines of its own,
//! lists of texts on one. So what is the same text is the same, and of two documents only what differs is ever taken
//! apart: comparing ten thousand routes costs little more than comparing their bytes.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;

use crate::config::tree::MAX_DEPTH;
use crate::runtime::pace::breathe;

/// Where the deepest level that can be written begins.
const DEEPEST: usize = 2 * MAX_DEPTH;
/// The column of what stands on its key's own line: it has no parts below it.
const INLINE: usize = usize::MAX;

/// A piece of a long form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written<'t> {
    /// From its first character on. Lines that follow begin with `column` spaces or more.
    text: &'t str,
    column: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    List,
    Map,
}

/// What stands for a section that is not there.
pub(crate) const NOTHING: Written<'static> = Written { text: "{}", column: INLINE };

impl<'t> Written<'t> {
    /// A whole long form.
    pub(crate) fn document(text: &'t str) -> Self {
        Written { text: text.trim_end(), column: 0 }
    }

    pub(crate) fn form(self) -> Form {
        match self.text.as_bytes() {
            [b'-', b' ', ..] | [b'[', ..] => Form::List,
            [b'{' | b'#', ..] => Form::Map,
            _ if self.column <= DEEPEST && scalar(self.text).1.starts_with(':') => Form::Map,
            _ => Form::Text,
        }
    }

    /// What a map holds, without comments; nothing of what is none.
    pub(crate) fn entries(self) -> impl Iterator<Item = (Cow<'t, str>, Written<'t>)> {
        self.parts().filter_map(|part| {
            let (key, rest) = scalar(part);
            let value = rest.strip_prefix(':')?;
            let value = match value.strip_prefix('\n') {
                Some(block) => {
                    let text = block.trim_start_matches(' ');
                    Written { text, column: block.len() - text.len() }
                }
                None => Written { text: value.trim_start(), column: INLINE },
            };
            (!part.starts_with('#')).then_some((key, value))
        })
    }

    /// A text that stands without quotes.
    pub(super) fn bare(self) -> Option<&'t str> {
        (self.form() == Form::Text && !self.text.starts_with('"')).then_some(self.text)
    }

    pub(crate) fn get(self, key: &str) -> Option<Written<'t>> {
        self.entries().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// What a list holds; nothing of what is none.
    pub(crate) fn items(self) -> Vec<Written<'t>> {
        if let Some(mut rest) = self.text.strip_prefix('[') {
            let next = || {
                let (_, after) = scalar(rest);
                let text = &rest[..rest.len() - after.len()];
                rest = after.strip_prefix(", ").unwrap_or_default();
                (!text.is_empty()).then_some(Written { text, column: INLINE })
            };
            return std::iter::from_fn(next).collect();
        }
        let item = |part: &'t str| Some(Written { text: part.strip_prefix("- ")?, column: self.column + 2 });
        self.parts().filter_map(item).collect()
    }

    /// What begins at this piece's own column, each with the deeper lines below it.
    fn parts(self) -> impl Iterator<Item = &'t str> {
        let mut rest = if self.column <= DEEPEST { self.text } else { "" };
        std::iter::from_fn(move || {
            breathe();
            let mut from = 0;
            while let Some(end) = memchr(b'\n', &rest.as_bytes()[from..]).map(|found| from + found) {
                let line = &rest[end + 1..];
                if line.as_bytes().get(self.column) != Some(&b' ') {
                    let part = &rest[..end];
                    rest = line.get(self.column..).unwrap_or_default();
                    return Some(part);
                }
                from = end + 1;
            }
            Some(std::mem::take(&mut rest)).filter(|part| !part.is_empty())
        })
    }
}

impl fmt::Display for Written<'_> {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form() {
            Form::Text => f.write_str(&scalar(self.text).0),
            Form::List => {
                f.write_str("[")?;
                for (position, item) in self.items().into_iter().enumerate() {
                    write!(f, "{}{item}", if position == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Form::Map => {
                f.write_str("{")?;
                for (position, (key, value)) in self.entries().enumerate() {
                    write!(f, "{} {key}: {value}", if position == 0 { "" } else { "," })?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// The scalar at the beginning of a text, and what comes after it.
fn scalar(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([':', ',', ']', '\n']).unwrap_or(text.len());
        return (Cow::Borrowed(&text[..end]), &text[end..]);
    };
    let mut escaped = false;
    let end = quoted.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    let Some(end) = end else { return (Cow::Borrowed(text), "") };
    let (inner, rest) = (&quoted[..end], &quoted[end + 1..]);
    (if inner.contains('\\') { Cow::Owned(unescaped(inner)) } else { Cow::Borrowed(inner) }, rest)
}

fn unescaped(inner: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(inner.len()), inner);
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let mut characters = after.chars();
        match characters.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('u') => {
                let code = after.get(1..5).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                text.extend(code.and_then(char::from_u32));
                characters = after.get(5..).unwrap_or_default().chars();
            }
            other => text.extend(other),
        }
        rest = characters.as_str();
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::yaml::Yaml;
    use super::*;

    /// As the writer wants it, and as it is to be read.
    fn trees() -> impl Strategy<Value = Yaml> {
        let texts = prop_oneof!["[a-z0-9./_-]{0,6}", "\\PC{0,6}", "[\"\\\\\n\t\u{1}\u{200b}: #,\\]\\[{}-]{0,6}"];
        let leaf = texts.clone().prop_map(|text| Yaml::Text(text.into()));
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let entry = prop_oneof![
                8 => (texts.clone().prop_map(Cow::Owned), inner.clone()),
                1 => ("[a-z]{1,3}".prop_map(Cow::Owned), "[a-z, :]{0,9}".prop_map(Yaml::Comment)),
            ];
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Yaml::List),
                prop::collection::vec(entry, 0..5).prop_map(Yaml::Map),
            ]
        })
    }

    /// On one line, comments left out.
    fn shown(yaml: &Yaml) -> String {
        match yaml {
            Yaml::Text(text) | Yaml::Quoted(text) => text.to_string(),
            Yaml::Comment(_) => String::new(),
            Yaml::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
            Yaml::Map(entries) => {
                let entries = entries.iter().filter(|(_, value)| !matches!(value, Yaml::Comment(_)));
                let entries: Vec<String> = entries.map(|(key, value)| format!(" {key}: {}", shown(value))).collect();
                format!("{{{} }}", entries.join(","))
            }
        }
    }

    fn is_alike(yaml: &Yaml, read: Written<'_>) -> bool {
        match yaml {
            Yaml::Text(text) | Yaml::Quoted(text) => read.form() == Form::Text && read.to_string() == *text,
            Yaml::Comment(_) => true,
            Yaml::List(items) => {
                let found = read.items();
                read.form() == Form::List
                    && found.len() == items.len()
                    && items.iter().zip(found).all(|(item, read)| is_alike(item, read))
            }
            Yaml::Map(entries) => {
                let entries = entries.iter().filter(|(_, value)| !matches!(value, Yaml::Comment(_)));
                read.form() == Form::Map
                    && entries.clone().count() == read.entries().count()
                    && entries
                        .zip(read.entries())
                        .all(|((key, value), (known, read))| *key == known && is_alike(value, read))
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in prop::collection::vec(("[a-z]{1,4}".prop_map(Cow::Owned), trees()), 1..5)) {
            let (document, mut text) = (Yaml::Map(entries), String::new());
            document.clone().write(0, &mut text);
            let read = Written::document(&text);
            prop_assert!(is_alike(&document, read), "{text}");
            prop_assert_eq!(read.to_string(), shown(&document));
        }

        #[test]
        fn whatever_is_read_is_only_read(text in "[a-c\": \n#\\[\\],{}\\\\-]{0,40}") {
            let _ = Written::document(&text).to_string();
        }
    }
}
