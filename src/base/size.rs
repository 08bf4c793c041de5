//! Sizes as people write and read them.

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSizeError {
    /// Not a number with a unit.
    #[error("\"{0}\" is not a size: write a number and b, k, m, g, t or p, such as 64m")]
    Syntax(String),
    /// More than an address space holds.
    #[error("\"{0}\" is too large a size")]
    TooLarge(String),
}

/// Parses `64m`, `1.5g`, `1024`, `2 GiB`, `10kb` into bytes. As with Podman and Docker every unit is
/// binary (k = 1024), upper and lower case mean the same, and a trailing `b` or `ib` changes
/// nothing.
pub fn parse(text: &str) -> Result<u64, ParseSizeError> {
    let error = || ParseSizeError::Syntax(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(error()),
    };
    let too_large = || ParseSizeError::TooLarge(text.to_owned());
    // Sizes end up in C's signed 64-bit fields.
    let most = i64::MAX as u64;
    if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() {
        let number: u64 = number.parse().map_err(|_| too_large())?;
        return number.checked_mul(1 << shift).filter(|bytes| *bytes <= most).ok_or_else(too_large);
    }
    let number: f64 = number.parse().map_err(|_| error())?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes < most as f64 { Ok(bytes as u64) } else { Err(too_large()) }
}

/// Three significant digits and a decimal unit, as Podman's listings print sizes: `4.26 MB`,
/// `170 MB`, `12 B`.
pub fn human(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, " ", &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Four significant digits and a decimal unit without a space: `4.263MB`.
pub fn human_exact(bytes: u64) -> String {
    scaled(bytes, 1000.0, 4, "", &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Four significant digits and a binary unit without a space, as Podman prints memory: `1.944GiB`.
pub fn human_binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, "", &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(bytes: u64, base: f64, digits: usize, space: &str, units: &[&str]) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    // 999.6 kB would round to 1000 kB: it is 1 MB.
    while size >= base - 0.5 && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{space}{}", significant(size, digits), units[unit])
}

/// `value` with `digits` significant digits and without trailing zeros.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value >= 1.0 { value.log10().floor() as usize + 1 } else { 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_podman_takes() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("12b", 12),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("10kb", 10 << 10),
            ("2 GiB", 2 << 30),
            ("1t", 1 << 40),
            (".5k", 512),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "m", "-1", "1x", "1.2.3m", "1mm", "m1", "1e3", "inf", "nan", ".", "0x10", "1 0"] {
            assert_eq!(parse(text), Err(ParseSizeError::Syntax(text.to_owned())), "{text}");
        }
        for text in ["9223372036854775808", "99999999999999999999", "8192p", "9e", "1000000.5p"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_as_podman_does() {
        for (bytes, expected) in [
            (0, "0 B"),
            (12, "12 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (4_260_000, "4.26 MB"),
            (4_261_299, "4.26 MB"),
            (170_123_456, "170 MB"),
            (12_345, "12.3 kB"),
            (999_600, "1 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human(bytes), expected, "{bytes}");
        }
        assert_eq!(human_binary(64 << 20), "64MiB");
        assert_eq!(human_binary(1536), "1.5KiB");
        assert_eq!(human_binary(2_087_354_367), "1.944GiB");
    }
}
