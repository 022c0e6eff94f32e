//! Durations, sizes, ratios, numbers, names and texts as they are written.

use std::time::Duration;

use schemars::{Schema, json_schema};

use super::scalar::{Invalid, Scalar, VARIABLE_PATTERN, pattern, scalar};
use super::text::quote;

/// A stretch of time: `500ms`, `1m30s`. At most a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

const LONGEST_PERIOD: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MILLISECONDS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Scalar for Period {
    const EXPECTED: &'static str = "a duration such as `500ms` or `1m30s`";
    const SCHEMA_NAME: &'static str = "Duration";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(format!("{} is not a duration", quote(text)));
        let mut rest = text;
        let mut total: u64 = 0;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let (digits, after) = split(rest, |character| character.is_ascii_digit());
            let (unit, after) = split(after, |character| !character.is_ascii_digit());
            let Some((_, factor)) = MILLISECONDS.iter().find(|(name, _)| *name == unit) else {
                return Err(wrong().hint(duration_hint(text, digits, unit)));
            };
            // Larger units first, each once: `1s1s` is a slip, not a sum.
            if digits.is_empty() || *factor >= smallest {
                return Err(wrong().hint("write it as in `500ms`, `10s` or `1m30s`"));
            }
            smallest = *factor;
            let part = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
            let Some(sum) = part.and_then(|part| total.checked_add(part)) else {
                return Err(Invalid::new(format!("{} is longer than a year", quote(text)))
                    .hint("write `none` where there is no bound"));
            };
            total = sum;
            rest = after;
        }
        if text.is_empty() {
            return Err(wrong().hint("write it as in `500ms`, `10s` or `1m30s`"));
        }
        let period = Duration::from_millis(total);
        if period > LONGEST_PERIOD {
            return Err(Invalid::new(format!("{} is longer than a year", quote(text))));
        }
        Ok(Period(period))
    }

    fn schema() -> Schema {
        let mut schema = pattern("([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?");
        schema.insert("description".to_owned(), "A duration such as `500ms`, `10s` or `1m30s`.".into());
        schema
    }
}
scalar!(Period);

fn duration_hint(text: &str, digits: &str, unit: &str) -> String {
    let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    if compact != text && Period::parse(&compact).is_ok() {
        return format!("write it without spaces: {}", quote(&compact));
    }
    if let Some(period) = with_point(text) {
        return format!("it is written without a point: {}", quote(&write_period(period)));
    }
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
        "" if !digits.is_empty() => {
            let [short, long] = ["ms", "s"].map(|unit| quote(&format!("{digits}{unit}")));
            return format!("it needs a unit, as in {short} or {long}");
        }
        "none" => return "this one needs a bound, as in `30s`".to_owned(),
        _ => return "units are `ms`, `s`, `m`, `h` and `d`, as in `1m30s`".to_owned(),
    };
    format!("did you mean {}?", quote(&format!("{digits}{meant}")))
}

/// `1.5s`, which has a whole number of a smaller unit.
fn with_point(text: &str) -> Option<Duration> {
    let (number, unit) = split(text, |character| character.is_ascii_digit() || character == '.');
    let (_, factor) = MILLISECONDS.iter().find(|(name, _)| *name == unit)?;
    let (whole, part) =
        number.split_once('.').filter(|(whole, part)| !whole.is_empty() && (1..=6).contains(&part.len()))?;
    let scale = 10u64.pow(u32::try_from(part.len()).ok()?);
    let parts = whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(part.parse().ok()?)?.checked_mul(*factor)?;
    let period = Duration::from_millis(parts.is_multiple_of(scale).then_some(parts / scale)?);
    (period <= LONGEST_PERIOD).then_some(period)
}

/// Writes a duration as [`Period`] reads it, in one unit.
pub(crate) fn write_period(period: Duration) -> String {
    let milliseconds = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    let unit =
        MILLISECONDS.iter().rev().find(|(_, factor)| milliseconds >= *factor && milliseconds.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".to_owned(), |(unit, factor)| format!("{}{unit}", milliseconds / factor))
}

/// A number of bytes: `512`, `64KiB`, `1MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const BYTES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Scalar for Size {
    const EXPECTED: &'static str = "a size such as `64KiB`";
    const SCHEMA_NAME: &'static str = "Size";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(format!("{} is not a size", quote(text)));
        let (digits, unit) = split(text, |character| character.is_ascii_digit());
        let factor = match unit {
            "" => 1,
            "KB" => 1_000,
            _ => match BYTES.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => {
                    let meant = BYTES.iter().find(|(name, _)| {
                        let unit = unit.trim().to_ascii_lowercase();
                        let name = name.to_ascii_lowercase();
                        // `64k` and `64Mi` are powers of two in Kubernetes and most proxies.
                        name == unit
                            || (unit.len() <= 2
                                && name.ends_with("ib")
                                && name.trim_end_matches('b').trim_end_matches('i') == unit.trim_end_matches('i'))
                    });
                    let hint = match meant {
                        Some((name, _)) if !digits.is_empty() => {
                            format!("did you mean {}?", quote(&format!("{digits}{name}")))
                        }
                        _ => "units are `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB` and `TiB`".to_owned(),
                    };
                    return Err(wrong().hint(hint));
                }
            },
        };
        if digits.is_empty() {
            return Err(wrong().hint("write it as in `64KiB`"));
        }
        if unit.is_empty() {
            not_octal(text, digits)?;
        }
        match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(bytes) => Ok(Size(bytes)),
            None => Err(Invalid::new(format!("{} is too large", quote(text)))),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "A number of bytes, such as `64KiB` or `1MB`.",
            "type": ["string", "integer"],
            "pattern": format!("^[0-9]+(B|[kK]B|MB|GB|[KMGT]iB)?$|{VARIABLE_PATTERN}"),
            "minimum": 0
        })
    }
}
scalar!(Size);

/// Writes a size as [`Size`] reads it.
pub(crate) fn write_size(bytes: u64) -> String {
    let unit = BYTES.iter().take(4).find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio(pub(crate) f64);

impl Scalar for Ratio {
    const EXPECTED: &'static str = "a ratio from 0 to 1";
    const SCHEMA_NAME: &'static str = "Ratio";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if let Some(percent) = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok())
            && (0.0..=100.0).contains(&percent)
        {
            let hint = format!("did you mean {}?", quote(&(percent / 100.0).to_string()));
            return Err(Invalid::new(format!("{} is not a ratio from 0 to 1", quote(text))).hint(hint));
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse::<f64>() {
            Ok(ratio) if plain && (0.0..=1.0).contains(&ratio) => Ok(Ratio(ratio)),
            Ok(_) if plain => Err(Invalid::new(format!("{} is not between 0 and 1", quote(text)))),
            _ => Err(Invalid::new(format!("{} is not a ratio from 0 to 1", quote(text)))),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "A share from 0 to 1.",
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": 1,
            "pattern": format!(r"^[0-9]*\.?[0-9]*$|{VARIABLE_PATTERN}")
        })
    }
}
scalar!(Ratio);

/// Seconds as metrics have them: `0.25`. From a microsecond to an hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seconds(pub(crate) f64);

impl Scalar for Seconds {
    const EXPECTED: &'static str = "a number of seconds such as `0.25`";
    const SCHEMA_NAME: &'static str = "Seconds";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if let Ok(period) = Period::parse(text) {
            let hint = format!("did you mean {}?", quote(&period.0.as_secs_f64().to_string()));
            return Err(Invalid::new(format!("{} is a duration; seconds are due here", quote(text))).hint(hint));
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse::<f64>() {
            Ok(seconds) if plain && (1e-6..=3_600.0).contains(&seconds) => Ok(Seconds(seconds)),
            Ok(_) if plain => Err(Invalid::new(format!("{} is not between 0.000001 and 3600", quote(text)))),
            _ => Err(Invalid::new(format!("{} is not a number of seconds", quote(text))).hint("write it as in `0.25`")),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "Seconds, such as `0.25`.",
            "type": ["number", "string"],
            "minimum": 0.000_001,
            "maximum": 3600,
            "pattern": format!(r"^[0-9]*\.?[0-9]*$|{VARIABLE_PATTERN}")
        })
    }
}
scalar!(Seconds);

/// A number of standard deviations, from 0.1 to 10.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Deviations(pub(crate) f64);

impl Scalar for Deviations {
    const EXPECTED: &'static str = "a number from 0.1 to 10";
    const SCHEMA_NAME: &'static str = "Deviations";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse::<f64>() {
            Ok(number) if plain && (0.1..=10.0).contains(&number) => Ok(Deviations(number)),
            _ => Err(Invalid::new(format!("{} is not a number from 0.1 to 10", quote(text)))),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["number", "string"],
            "minimum": 0.1,
            "maximum": 10,
            "pattern": format!(r"^[0-9]*\.?[0-9]*$|{VARIABLE_PATTERN}")
        })
    }
}
scalar!(Deviations);

/// Refuses what is octal in YAML 1.1, and decimal in YAML 1.2.
fn not_octal(text: &str, digits: &str) -> Result<(), Invalid> {
    if digits.len() < 2 || !digits.starts_with('0') {
        return Ok(());
    }
    Err(Invalid::new(format!("{} begins with a zero, which readers of YAML take differently", quote(text)))
        .hint(format!("write {}", quote(digits.trim_start_matches('0')))))
}

/// A whole number between two bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number<const LEAST: u32, const MOST: u32>(pub(crate) u32);

impl<const LEAST: u32, const MOST: u32> Scalar for Number<LEAST, MOST> {
    const EXPECTED: &'static str = "a whole number in the range of this key";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let range =
            || if LEAST == MOST { format!("it can be {LEAST}") } else { format!("it can be {LEAST} to {MOST}") };
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Invalid::new(format!("{} is not a whole number", quote(text))).hint(range()));
        }
        not_octal(text, digits)?;
        match text.parse::<u32>() {
            Ok(number) if (LEAST..=MOST).contains(&number) => Ok(Number(number)),
            _ => Err(Invalid::new(format!("{} is out of range", quote(text))).hint(range())),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": LEAST,
            "maximum": MOST,
            "pattern": format!("^[0-9]+$|{VARIABLE_PATTERN}")
        })
    }
}
scalar!(Number<LEAST, MOST>, const LEAST: u32, const MOST: u32);

/// A name of the user's own: `[a-z0-9]([-a-z0-9_]*[a-z0-9])?`, at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

impl Scalar for Name {
    const EXPECTED: &'static str = "a name of lower case letters, digits, `-` and `_`";
    const SCHEMA_NAME: &'static str = "Name";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let bytes = text.as_bytes();
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'_'));
        if valid && text.len() <= 63 {
            return Ok(Name(text.to_owned()));
        }
        if valid {
            return Err(Invalid::new(format!("the name {} is longer than 63 characters", quote(text))));
        }
        let hint = "lower case letters, digits, `-` and `_`; a letter or digit first and last";
        Err(Invalid::new(format!("{} is not a name", quote(text))).hint(hint))
    }

    fn schema() -> Schema {
        let mut schema = pattern("[a-z0-9]([-a-z0-9_]{0,61}[a-z0-9])?");
        // A name of digits is a number to other readers of YAML.
        schema.insert("type".to_owned(), serde_json::json!(["string", "integer"]));
        schema
    }
}
scalar!(Name);

/// Any text. Unquoted numbers and booleans are texts where one is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Scalar for Text {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Result<Self, Invalid> {
        Ok(Text(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
scalar!(Text);

/// `true` or `false`; no other word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl Scalar for Flag {
    const EXPECTED: &'static str = "`true` or `false`";

    fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "true" => Ok(Flag(true)),
            "false" => Ok(Flag(false)),
            _ => {
                let wrong = Invalid::new(format!("{} is not `true` or `false`", quote(text)));
                Err(match text {
                    "yes" | "on" | "True" | "TRUE" => wrong.hint("write `true`"),
                    "no" | "off" | "False" | "FALSE" => wrong.hint("write `false`"),
                    _ => wrong,
                })
            }
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["boolean", "string"], "pattern": format!("^(true|false)$|{VARIABLE_PATTERN}") })
    }
}
scalar!(Flag);

fn split(text: &str, is_first: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !is_first(character)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<T: Scalar + std::fmt::Debug>(text: &str) -> String {
        T::parse(text).unwrap_err().hint.unwrap_or_default()
    }

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in
            [("500ms", 500), ("1m30s", 90_000), ("0s", 0), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(Period::parse(text).unwrap().0.as_millis(), milliseconds, "{text}");
        }
        for text in ["", "5", "s", "1s1s", "1s1m", "-1s", "1.5s", "5 s", "366d", "99999999999999999999s", "1ｓ", "१s"]
        {
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_hints() {
        assert!(hint::<Period>("5").contains("`5ms` or `5s`"));
        assert!(hint::<Period>("1.5s").contains("`1500ms`"));
        assert!(hint::<Period>("0.5h").contains("`30m`"));
        for none in ["1.5ms", "1.s", ".5s", "1.5", "1.2.3s", "99999999999999.9d", "0.0000001s"] {
            assert!(!hint::<Period>(none).contains("without a point"), "{none}");
        }
        assert!(hint::<Period>("10 s").contains("`10s`"));
        assert!(hint::<Period>("5seconds").contains("`5s`"));
        assert!(hint::<Period>("5 min").contains("`5m`"));
        assert!(hint::<Period>("none").contains("a bound"));
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64KiB", 65_536), ("1MB", 1_000_000), ("2kB", 2_000), ("1B", 1)]
        {
            assert_eq!(Size::parse(text).unwrap().0, bytes, "{text}");
        }
        for text in ["", "KiB", "1.5MiB", "-1", "64 KiB", "99999999999999999999", "99999999999TiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
        assert!(hint::<Size>("64k").contains("`64KiB`"));
        assert!(hint::<Size>("64kib").contains("`64KiB`"));
        assert!(hint::<Size>("64 MiB").contains("`64MiB`"));
        assert_eq!(hint::<Size>("010"), "write `10`");
    }

    #[test]
    fn numbers_keep_their_bounds() {
        assert_eq!(Number::<1, 10>::parse("10").unwrap().0, 10);
        for text in ["0", "11", "-1", "", "1.0", "0x1", "010", "99999999999", "१"] {
            assert!(Number::<1, 10>::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ratios_are_read() {
        for (text, ratio) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), (".5", 0.5)] {
            assert!((Ratio::parse(text).unwrap().0 - ratio).abs() < f64::EPSILON, "{text}");
        }
        for text in ["", "1.1", "-0", "NaN", "inf", "1e-3", "50%"] {
            assert!(Ratio::parse(text).is_err(), "{text}");
        }
        assert!(hint::<Ratio>("50%").contains("`0.5`"));
    }

    #[test]
    fn names_are_those_of_the_contract() {
        for text in ["a", "a-b", "0", "payments_v2"] {
            assert!(Name::parse(text).is_ok(), "{text}");
        }
        for text in ["", "-a", "a-", "A", "a.b", "ä", &"a".repeat(64)] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(milliseconds in 0u64..31_536_000_000, bytes: u64) {
            let period = Duration::from_millis(milliseconds);
            proptest::prop_assert_eq!(Period::parse(&write_period(period)), Ok(Period(period)));
            proptest::prop_assert_eq!(Size::parse(&write_size(bytes)), Ok(Size(bytes)));
        }
    }
}
