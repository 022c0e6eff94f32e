//! What is put into manifests: values, and how they are written in block or flow style.

use serde_json::json;

/// A value that keeps its keys in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Number(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Value::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

/// A mapping from its entries.
pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl Value {
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => json!(text),
            Value::Number(number) => json!(number),
            Value::Flag(flag) => json!(flag),
            Value::List(items) => items.iter().map(Value::to_json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
            }
        }
    }

    /// On one line, as JSON: that is flow style too.
    pub(super) fn to_flow(&self) -> String {
        match self {
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(Value::to_flow).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Map(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{}: {}", json!(key), value.to_flow())).collect();
                format!("{{{}}}", entries.join(", "))
            }
            scalar => scalar.to_json().to_string(),
        }
    }

    /// On one line, in the place of something that was written bare or not.
    pub(super) fn to_line(&self, bare: bool) -> String {
        match self {
            Value::Text(text) if bare => scalar(text),
            other => other.to_flow(),
        }
    }

    /// Lines in block style. The first has no indentation, and none has an end.
    pub(super) fn to_block(&self) -> Vec<String> {
        match self {
            Value::List(items) if !items.is_empty() => items
                .iter()
                .flat_map(|item| {
                    let lines = item.to_block();
                    lines
                        .into_iter()
                        .enumerate()
                        .map(|(index, line)| format!("{}{line}", if index == 0 { "- " } else { "  " }))
                })
                .collect(),
            Value::Map(entries) if !entries.is_empty() => {
                entries.iter().flat_map(|(key, value)| block_entry(key, value)).collect()
            }
            Value::Text(text) => vec![scalar(text)],
            other => vec![other.to_flow()],
        }
    }
}

/// An entry of a block mapping.
pub(super) fn block_entry(key: &str, value: &Value) -> Vec<String> {
    let key = scalar(key);
    match value {
        // Short lists of words, such as commands, read better on one line.
        Value::List(items)
            if items.iter().all(|item| matches!(item, Value::Text(_))) && value.to_flow().len() <= 80 =>
        {
            vec![format!("{key}: {}", value.to_flow())]
        }
        Value::List(items) if !items.is_empty() => [format!("{key}:")].into_iter().chain(value.to_block()).collect(),
        Value::Map(entries) if !entries.is_empty() => {
            let lines = value.to_block().into_iter().map(|line| format!("  {line}"));
            [format!("{key}:")].into_iter().chain(lines).collect()
        }
        scalar => scalar.to_block().into_iter().map(|line| format!("{key}: {line}")).collect(),
    }
}

/// A text as a scalar of one line: bare where nothing can misread it (YAML 1.1 has words and numbers of many kinds).
fn scalar(text: &str) -> String {
    let bare = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '-' | '_'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
        );
    if bare {
        text.to_owned()
    } else if text.contains(|letter: char| letter.is_control()) || !text.contains('"') {
        json!(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::yaml;

    #[test]
    fn blocks_are_readable() {
        let value = map([
            ("name", "a".into()),
            ("args", vec!["run", ":1"].into()),
            (
                "env",
                Value::List(vec![map([("name", "A".into()), ("value", "no".into())]), map([("name", "B".into())])]),
            ),
            ("deep", map([("x/y.z", 1u64.into()), ("none", Value::Map(Vec::new()))])),
        ]);
        let expected = "name: a\nargs: [\"run\", \":1\"]\nenv:\n- name: A\n  value: \"no\"\n- name: B\n\
                        deep:\n  x/y.z: 1\n  none: {}";
        assert_eq!(value.to_block().join("\n"), expected);
        assert_eq!(
            value.to_flow(),
            r#"{"name": "a", "args": ["run", ":1"], "env": [{"name": "A", "value": "no"}, {"name": "B"}], "deep": {"x/y.z": 1, "none": {}}}"#
        );
    }

    #[test]
    fn any_text_comes_back() {
        for text in ["a", "no", "1", "", ":", "a: b", "{\"a\":1}", "it's", "{\"it's\"}", "x\ny", "#", "- a", "/a"] {
            let written = format!("k: {}\nf: {}\n", scalar(text), Value::from(text).to_flow());
            let documents = yaml::parse(&written).unwrap();
            let root = &documents[0].root;
            assert_eq!((root.text_at("k"), root.text_at("f")), (Some(text), Some(text)), "{written}");
        }
    }
}
