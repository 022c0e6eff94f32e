//! How values of a file appear in messages, and which word was probably meant.

/// A value in backquotes: one line, no control characters, at most 60 characters.
pub(crate) fn quote(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut quoted = String::from("`");
    for (index, character) in value.chars().enumerate() {
        if index == LONGEST {
            quoted.push('…');
            break;
        }
        if character.is_control() || is_invisible(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    quoted
}

/// Characters that reorder or hide the text around them.
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn listed<'a>(words: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let quoted: Vec<String> = words.into_iter().map(quote).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

/// The known word that is nearest to one that is not, where it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not typing mistakes, and the distance takes quadratic time.
    if word.len() > 64 {
        return None;
    }
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (strsim::osa_distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A hint with the nearest word, or with all words where none is near and they are few.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    match nearest(word, known.iter().copied()) {
        Some(nearest) => Some(format!("did you mean {}?", quote(nearest))),
        None if known.is_empty() => None,
        None if known.len() <= 16 => Some(format!("it can be {}", listed(known.iter().copied(), "or"))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_recognised() {
        let known = ["address", "routes", "upstream", "header_timeout"];
        for (word, meant) in [
            ("adress", Some("address")),
            ("rotues", Some("routes")),
            ("Upstream", Some("upstream")),
            ("header-timeout", Some("header_timeout")),
            ("zebra", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn quoted_values_are_harmless() {
        assert_eq!(quote("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), 63);
    }

    #[test]
    fn lists_read_well() {
        assert_eq!(listed(["a"], "and"), "`a`");
        assert_eq!(listed(["a", "b", "c"], "or"), "`a`, `b` or `c`");
    }
}
