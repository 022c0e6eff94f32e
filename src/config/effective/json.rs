//! The long form as JSON, for programs: the same keys in the same order. Loading it gives the same configuration.

use serde::{Serialize, Serializer};

use super::written::{Form, Written};

/// The long form as something that can be written as JSON.
pub(crate) fn as_json(effective: &str) -> impl Serialize {
    Written::document(effective)
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.form() {
            Form::Map => serializer.collect_map(self.entries()),
            Form::List => serializer.collect_seq(self.items()),
            Form::Text => match Bare::of(*self) {
                Some(Bare::Flag(flag)) => serializer.serialize_bool(flag),
                Some(Bare::Whole(number)) => serializer.serialize_u32(number),
                Some(Bare::Decimal(number)) => serializer.serialize_f64(number),
                None => serializer.collect_str(self),
            },
        }
    }
}

/// What stands without quotes and is no text to anybody who reads YAML.
enum Bare {
    Flag(bool),
    Whole(u32),
    Decimal(f64),
}

impl Bare {
    fn of(written: Written<'_>) -> Option<Self> {
        let text = written.bare()?;
        match text {
            "true" | "false" => Some(Bare::Flag(text == "true")),
            _ if !text.starts_with(|first: char| first.is_ascii_digit()) => None,
            _ => text.parse().map(Bare::Whole).ok().or_else(|| decimal(text)),
        }
    }
}

/// Where JSON writes it as it is written here: one with an exponent could not be loaded again.
fn decimal(text: &str) -> Option<Bare> {
    let number = text.parse::<f64>().ok()?;
    (serde_json::to_string(&number).ok()? == text).then_some(Bare::Decimal(number))
}

#[cfg(test)]
mod tests {
    use crate::config::environment::MissingVariables;
    use crate::config::{Document, LoadOptions, examine, load};

    fn json(effective: &str) -> String {
        serde_json::to_string(&super::as_json(effective)).unwrap()
    }

    #[test]
    fn words_numbers_and_flags_are_told_apart() {
        let effective = "a: 0.05\nb: \"0.10\"\nc: [\"2xx\", 15, 1s]\nd:\n  e: true\n  # f: nothing\n  g: \"no\"\nh: {}\ni: \"1.2\"\nj: 0.000001\n";
        let expected =
            r#"{"a":0.05,"b":"0.10","c":["2xx",15,"1s"],"d":{"e":true,"g":"no"},"h":{},"i":"1.2","j":"0.000001"}"#;
        assert_eq!(json(effective), expected);
    }

    #[test]
    fn it_means_the_same_as_the_long_form() {
        let text = include_str!("../../../config/reference.yaml");
        let options = LoadOptions { missing_variables: MissingVariables::Allow, ..LoadOptions::default() };
        let known = |name: &str| (name == "POD_IP").then(|| "10.0.0.9".to_owned());
        let loaded = load(Document { name: "reference", bytes: text.as_bytes() }, &known, &options).unwrap();
        let json = json(&loaded.effective);
        assert!(json.contains("${POD_IP") && !json.contains("10.0.0.9"), "what a variable holds is never shown");
        let again = examine(Document { name: "json", bytes: json.as_bytes() }, &known, &options);
        assert_eq!(format!("{:?}", again.config), format!("{:?}", Some(loaded.config)));
        assert_eq!(again.effective, Some(loaded.effective));
    }
}
