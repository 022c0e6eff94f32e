//! Numbers as people read them.

/// Something a second.
pub(super) fn rate(value: Option<f64>) -> String {
    match value {
        None => nothing(),
        Some(value) if value >= 99.95 => grouped(value.round() as u64),
        Some(value) => format!("{value:.1}"),
    }
}

pub(super) fn millis(value: Option<f64>) -> String {
    match value {
        None => nothing(),
        Some(value) if value >= 9_995.0 => format!("{:.0} s", value / 1e3),
        Some(value) if value >= 999.5 => format!("{:.1} s", value / 1e3),
        Some(value) if value >= 99.95 => format!("{value:.0} ms"),
        Some(value) if value >= 9.995 => format!("{value:.1} ms"),
        Some(value) => format!("{value:.2} ms"),
    }
}

/// A share in percent. What is not everything is never shown as if it were.
pub(super) fn percent(share: Option<f64>) -> String {
    match share.map(|share| share * 100.0) {
        None => nothing(),
        Some(100.0) => "100 %".to_owned(),
        Some(percent) if percent >= 99.0 => format!("{:.2} %", percent.min(99.99)),
        Some(percent) => format!("{percent:.1} %"),
    }
}

/// How long ago, or how long still.
pub(super) fn seconds(value: f64) -> String {
    match value {
        ..60.0 => format!("{:.0} s", value.max(0.0).ceil()),
        ..3_600.0 => format!("{:.0} min", (value / 60.0).floor()),
        ..86_400.0 => format!("{:.0} h", (value / 3_600.0).floor()),
        _ => format!("{:.0} d", (value / 86_400.0).floor()),
    }
}

/// With commas between thousands.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A word of the contract, such as `connect_failure`, with spaces.
pub(super) fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

pub(super) fn nothing() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_as_many_as_matter() {
        assert_eq!(
            [None, Some(0.0), Some(99.94), Some(99.96), Some(12_345.6)].map(rate),
            ["–", "0.0", "99.9", "100", "12,346"]
        );
        let times = [None, Some(0.05), Some(9.994), Some(99.94), Some(999.4), Some(1_234.0), Some(59_600.0)];
        assert_eq!(times.map(millis), ["–", "0.05 ms", "9.99 ms", "99.9 ms", "999 ms", "1.2 s", "60 s"]);
        let shares = [None, Some(1.0), Some(0.999_999), Some(0.99), Some(0.5), Some(0.0)];
        assert_eq!(shares.map(percent), ["–", "100 %", "99.99 %", "99.00 %", "50.0 %", "0.0 %"]);
        assert_eq!([0.0, 4.2, 90.0, 7_200.0, 200_000.0].map(seconds), ["0 s", "5 s", "1 min", "2 h", "2 d"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
