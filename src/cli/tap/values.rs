//! Values of this command's options: what the proxy would refuse is a mistake in the command line.

use crate::config::flags;

/// As much of a body as the proxy shows.
const MOST_BODY_BYTES: u64 = 64 << 10;

/// `404`, or a class such as `5xx`.
pub(super) fn status(text: &str) -> Result<String, String> {
    let is_class = text.strip_suffix("xx").is_some_and(|class| matches!(class, "1" | "2" | "3" | "4" | "5"));
    let is_status = text.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
    if is_class || is_status { Ok(text.to_owned()) } else { Err("write a status, such as 404, or 5xx".to_owned()) }
}

/// From 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a ratio from 0 to 1".to_owned())
}

/// At most [`MOST_BODY_BYTES`].
pub(super) fn body_bytes(text: &str) -> Result<u64, String> {
    let bytes = flags::size(text)?;
    if bytes <= MOST_BODY_BYTES { Ok(bytes) } else { Err("it can be at most 64KiB".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_proxy_would_refuse_is_refused() {
        assert!(["100", "599", "1xx", "5xx"].into_iter().all(|text| status(text).is_ok()));
        assert!(["99", "700", "6xx", "xx", "ok"].into_iter().all(|text| status(text).is_err()));
        assert!(share("0.5").is_ok() && share("2").is_err() && share("NaN").is_err() && share("half").is_err());
        assert!(body_bytes("64KiB").is_ok() && body_bytes("1GiB").is_err() && body_bytes("some").is_err());
    }
}
