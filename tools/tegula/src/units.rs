//! Numbers as people write and read them: sizes in binary units, rates, times.

use std::time::Duration;

/// Binary units, smallest first.
const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Reads a size: bytes, or a number with `K`, `M`, `G` or `T` (binary; `KiB` and so on mean the same).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.strip_suffix(unit).unwrap_or_default();
    if digits.is_empty() {
        return Err(format!(
            "{text:?} is no whole number such as 65536, 64K or 1M"
        ));
    }
    let letter = unit
        .strip_suffix("iB")
        .filter(|letter| !letter.is_empty())
        .unwrap_or(unit);
    let shift = match letter {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err(format!("{unit:?} is no unit: use K, M, G or T (binary)")),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "more than 2^64 bytes".to_owned())
}

/// Shows a size in the largest binary unit it reaches.
#[expect(
    clippy::cast_precision_loss,
    reason = "four digits are shown, 52 bits are there"
)]
pub(crate) fn size(bytes: u64) -> String {
    let exponent = bytes.checked_ilog2().unwrap_or(0) / 10;
    let unit = UNITS.get(exponent as usize).copied().unwrap_or("B");
    match exponent {
        0 => format!("{bytes} {unit}"),
        _ => format!(
            "{:.1} {unit}",
            bytes as f64 / (1u64 << (exponent * 10)) as f64
        ),
    }
}

/// Shows a size, with the exact number of bytes if asked for.
pub(crate) fn size_exact(bytes: u64, exact: bool) -> String {
    match exact && bytes >= 1024 {
        true => format!("{} ({bytes} B)", size(bytes)),
        false => size(bytes),
    }
}

/// Shows how many bytes were done in a second.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate shown to people, never negative"
)]
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let per_second = bytes as f64 / time.as_secs_f64().max(1e-6);
    format!("{}/s", size(per_second as u64))
}

/// Shows a ratio, such as `2.4 x`.
pub(crate) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2} x")
}

/// Shows a time in seconds.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Shows a moment, given in microseconds since 1970, to the second in UTC (RFC 3339).
pub(crate) fn moment(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us)
        .and_then(|moment| moment.round(jiff::Unit::Second))
        .map_or_else(|_| format!("{us} us"), |moment| moment.to_string())
}

/// Shows a number with a word that has the right number too.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Makes a text safe for a terminal: control characters are shown, not obeyed. Line ends stay.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_whatever_their_unit_is_called() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("1M", 1 << 20),
            ("3G", 3 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "K",
            "iB",
            "64X",
            "64KB",
            "-1",
            "1.5M",
            "1 M",
            "16777216T",
            "6é",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_they_reach() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (512 << 20, "512.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size_exact(65_536, true), "64.0 KiB (65536 B)");
        assert_eq!(size_exact(512, true), "512 B");
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\nc");
    }

    #[test]
    fn a_moment_is_shown_in_utc() {
        assert_eq!(moment(1_700_000_000_000_000), "2023-11-14T22:13:20Z");
    }
}
