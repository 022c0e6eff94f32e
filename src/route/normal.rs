//! The form of a path that routes are matched against.
//!
//! RFC 3986 §6.2.2 names the spellings of one path that every server may take for the same: percent-encoded letters
//! (`/%61dmin` is `/admin`), hexadecimal digits of either case, dot segments (`/x/../admin` is `/admin`). Were routes
//! matched against the path as received, each of them would walk past a route that guards `/admin` and be served as
//! `/admin` behind it. So the match undoes exactly these, as nginx does and Envoy in Istio's default. What means
//! different things to different servers stays different: `//`, `%2F`, `%5C` and `;` are not touched.
//!
//! Only the match (and a rewrite, of what was matched) uses this form: a path that no route changes is sent on as it
//! was received, for signatures are made over it.

use std::borrow::Cow;

/// The path's normal form; the path itself, at no cost, where it is in that form already. Paths that do not begin with
/// a slash (`*`) have no other form.
pub(crate) fn normalise(path: &str) -> Cow<'_, str> {
    if !suspicious(path.as_bytes()) || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    match has_dot_segments(&decoded) {
        true => Cow::Owned(remove_dot_segments(&decoded)),
        false => decoded,
    }
}

/// Whether a closer look is due: a `%` or `/.` is in it. No branch for each byte, so that this compiles to a few vector
/// instructions.
fn suspicious(path: &[u8]) -> bool {
    let next = path.get(1..).unwrap_or_default();
    path.iter()
        .zip(next)
        .fold(false, |found, (&byte, &next)| found | (next == b'%') | ((byte == b'/') & (next == b'.')))
}

/// RFC 3986 §6.2.2.1 and §6.2.2.2. Broken sequences stay.
fn decode_unreserved(path: &str) -> Cow<'_, str> {
    let mut decoded = Vec::new();
    let mut copied = 0;
    for at in memchr::memchr_iter(b'%', path.as_bytes()) {
        let Some(&[_, high, low]) = path.as_bytes().get(at..at + 3) else { break };
        let (Some(high_digit), Some(low_digit)) = (hex(high), hex(low)) else { continue };
        let byte = high_digit << 4 | low_digit;
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if unreserved || high.is_ascii_lowercase() || low.is_ascii_lowercase() {
            decoded.extend_from_slice(&path.as_bytes()[copied..at]);
            match unreserved {
                true => decoded.push(byte),
                false => decoded.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
            }
            copied = at + 3;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(path);
    }
    decoded.extend_from_slice(&path.as_bytes()[copied..]);
    // ASCII was replaced by ASCII, so this never fails; were it to, the path would be matched as received.
    String::from_utf8(decoded).map_or(Cow::Borrowed(path), Cow::Owned)
}

fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| segment == "." || segment == "..")
}

/// RFC 3986 §5.2.4. What would climb above the root stays there.
fn remove_dot_segments(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            result.truncate(result.rfind('/').unwrap_or(0));
        }
        let dots = segment == "." || segment == "..";
        if !dots {
            result.push('/');
            result.push_str(segment);
        } else if segments.peek().is_none() {
            result.push('/');
        }
    }
    result
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_path_become_one() {
        for (path, expected) in [
            ("/%61dmin", "/admin"),
            ("/%7euser", "/~user"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/./a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/.", "/"),
            ("//../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/%c3%a9", "/%C3%A9"),
            ("/%2525", "/%2525"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/%6", "/%6"),
            ("/%zz%61", "/%zza"),
            ("/%%61", "/%a"),
        ] {
            assert_eq!(normalise(path), expected, "{path}");
        }
    }

    #[test]
    fn ordinary_paths_cost_no_allocation() {
        for path in [
            "/",
            "*",
            "/.well-known/x",
            "/a/...",
            "/caf%C3%A9",
            "/a%2Fb",
            "//a",
            "/a//b",
            "/a;/b",
            "/a\\..\\b",
            "/a..",
            "",
        ] {
            assert!(matches!(normalise(path), Cow::Borrowed(same) if same == path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable_and_has_no_dot_segments(path in "/([./%2eE6a1f/]|%2e|%61){0,24}") {
            let once = normalise(&path).into_owned();
            prop_assert!(once.starts_with('/'));
            prop_assert!(!has_dot_segments(&once));
            // `%%61…` may put a new sequence together; no server decodes twice, and neither do we.
            if !path.contains("%%") && !once.contains("%%") {
                prop_assert!(!has_dot_segments(&normalise(&once)));
            }
        }
    }
}
