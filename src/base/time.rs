//! Points in time and spans as Podman prints and takes them. Nothing here reads the clock.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A text that is no point in time or span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimeError {
    /// No form fits.
    #[error("\"{0}\" is not a time: write 2026-01-31T12:00:00Z, Unix seconds or a span such as 1h30m")]
    Time(String),
    /// Not a Go duration.
    #[error("\"{0}\" is not a duration: write numbers with h, m, s, ms, us or ns, such as 1m30s")]
    Duration(String),
    /// Outside of the years that can be told.
    #[error("\"{0}\" is out of range")]
    Range(String),
}

/// RFC 3339 in UTC with nanoseconds: `2026-01-31T12:00:00.123456789Z`. Texts of this form sort by time.
pub fn utc(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// RFC 3339 in `zone` with nanoseconds and a numeric offset, as log lines have it:
/// `2026-01-31T13:00:00.123456789+01:00`.
pub fn rfc3339(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
}

/// How Go prints a time, which listings show as "created at": `2026-01-31 13:00:00.123456789 +0100 CET`.
pub fn go(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

/// A span in words: `Less than a second`, `5 minutes`, `About an hour`, `3 weeks`. A negative span
/// (the clock was set back) counts as none.
pub fn human(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    let (count, unit) = match (seconds, minutes, hours) {
        (0, ..) => return "Less than a second".to_owned(),
        (1, ..) => return "1 second".to_owned(),
        (2..60, ..) => (seconds, " seconds"),
        (_, 1, _) => return "About a minute".to_owned(),
        (_, 2..60, _) => (minutes, " minutes"),
        (_, _, 1) => return "About an hour".to_owned(),
        (_, _, 2..48) => (hours, " hours"),
        (_, _, 48..336) => (hours / 24, " days"),
        (_, _, 336..1440) => (hours / 24 / 7, " weeks"),
        (_, _, 1440..17520) => (hours / 24 / 30, " months"),
        _ => (hours / 24 / 365, " years"),
    };
    count.to_string() + unit
}

/// `2 hours ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    human(now.duration_since(then)) + " ago"
}

/// Podman's status of a running container: `Up 5 minutes`.
pub fn up(started: Timestamp, now: Timestamp) -> String {
    format!("Up {}", human(now.duration_since(started)))
}

/// Podman's status of a stopped container: `Exited (0) 3 seconds ago`. Without a code the exit is
/// unknown, and said so rather than shown as 0.
pub fn exited(code: Option<i32>, finished: Timestamp, now: Timestamp) -> String {
    let code = code.map_or("unknown".into(), |code| code.to_string());
    ["Exited (", &code, ") ", &ago(finished, now)].concat()
}

/// The value of `--since` and `--until`: RFC 3339, a date with or without a time (then in `zone`),
/// As Go writes a duration: `1h2m3.5s`, `0s`; milliseconds are the smallest part.
pub fn go_duration(milliseconds: u64) -> String {
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    let (seconds, rest) = (milliseconds / 1000 % 60, milliseconds % 1000);
    if (1..1000).contains(&milliseconds) {
        return format!("{milliseconds}ms");
    }
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:03}") };
    let seconds = format!("{seconds}{}s", fraction.trim_end_matches('0'));
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// Unix seconds with or without a fraction, or a Go duration that counts back from `now`.
pub fn parse_point(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, ParseTimeError> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let range = || ParseTimeError::Range(text.to_owned());
    let numeric = text.strip_prefix('-').unwrap_or(text);
    if numeric.starts_with(|c: char| c.is_ascii_digit())
        && numeric.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        return unix(text).ok_or_else(range);
    }
    let civil = text.parse::<DateTime>().ok().or_else(|| Some(text.parse::<Date>().ok()?.at(0, 0, 0, 0)));
    if let Some(civil) = civil.filter(|_| numeric.as_bytes().get(4) == Some(&b'-')) {
        return civil.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()).map_err(|_| range());
    }
    match parse_duration(text) {
        Ok(span) => now.checked_sub(span).map_err(|_| range()),
        Err(ParseTimeError::Duration(text)) => Err(ParseTimeError::Time(text)),
        Err(error) => Err(error),
    }
}

/// `seconds[.fraction]`, exact to the nanosecond.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.contains('.') {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let nanos = if text.starts_with('-') { -nanos } else { nanos };
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

/// Go's `time.ParseDuration`: `1h30m`, `1.5s`, `300ms`, `-2us`, `0`.
pub fn parse_duration(text: &str) -> Result<SignedDuration, ParseTimeError> {
    let error = || ParseTimeError::Duration(text.to_owned());
    let range = || ParseTimeError::Range(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at(length);
        let unit_length = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(error()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(error());
        }
        // Eighteen digits of a fraction of an hour are less than a nanosecond.
        let fraction = &fraction[..fraction.len().min(18)];
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| range())? };
        let part: i64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| range())? };
        nanos += i128::from(whole) * scale + i128::from(part) * scale / 10_i128.pow(fraction.len() as u32);
        rest = tail;
    }
    // Go's durations are 64-bit nanoseconds.
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).map_err(|_| range())?;
    Ok(SignedDuration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn prints() {
        let time = at("2026-01-31T12:00:00.5Z");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(utc(time), "2026-01-31T12:00:00.500000000Z");
        assert_eq!(rfc3339(time, &zone), "2026-01-31T13:00:00.500000000+01:00");
        assert_eq!(rfc3339(time, &TimeZone::UTC), "2026-01-31T12:00:00.500000000+00:00");
        assert_eq!(go(time, &TimeZone::UTC), "2026-01-31 12:00:00.5 +0000 UTC");
        assert_eq!(go(at("2026-01-31T12:00:00Z"), &TimeZone::UTC), "2026-01-31 12:00:00 +0000 UTC");
    }

    #[test]
    fn spans_in_podmans_words() {
        for (seconds, expected) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (59 * 86400, "8 weeks"),
            (60 * 86400, "2 months"),
            (700 * 86400, "23 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), expected, "{seconds}");
        }
        let (then, now) = (at("2026-01-31T12:00:00Z"), at("2026-01-31T14:00:00Z"));
        assert_eq!(ago(then, now), "2 hours ago");
        assert_eq!(up(then, now), "Up 2 hours");
        assert_eq!(exited(Some(137), then, now), "Exited (137) 2 hours ago");
        assert_eq!(exited(None, then, now), "Exited (unknown) 2 hours ago");
    }

    #[test]
    fn points() {
        let now = at("2026-01-31T12:00:00Z");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        for (text, expected) in [
            ("2026-01-30T10:00:00Z", "2026-01-30T10:00:00Z"),
            ("2026-01-30T10:00:00.25+02:00", "2026-01-30T08:00:00.25Z"),
            ("2026-01-30T10:00:00", "2026-01-30T08:00:00Z"),
            ("2026-01-30T10:00", "2026-01-30T08:00:00Z"),
            ("2026-01-30", "2026-01-29T22:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("1769774400", "2026-01-30T12:00:00Z"),
            ("1769774400.000000001", "2026-01-30T12:00:00.000000001Z"),
            ("-1.5", "1969-12-31T23:59:58.5Z"),
            ("10m", "2026-01-31T11:50:00Z"),
            ("1h30m", "2026-01-31T10:30:00Z"),
            ("-5s", "2026-01-31T12:00:05Z"),
        ] {
            assert_eq!(parse_point(text, now, &zone), Ok(at(expected)), "{text}");
        }
        for text in ["", "yesterday", "1h30", "99999999999999999999", "2026-13-01", "10 minutes", "1.2.3"] {
            let parsed = parse_point(text, now, &zone);
            assert!(parsed.is_err(), "{text}: {parsed:?}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (milliseconds, text) in [
            (0, "0s"),
            (120, "120ms"),
            (1000, "1s"),
            (61_500, "1m1.5s"),
            (3_600_000, "1h0m0s"),
            (10_800_020, "3h0m0.02s"),
        ] {
            assert_eq!(go_duration(milliseconds), text);
        }
    }

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("0", 0),
            ("1h", 3_600_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("300ms", 300_000_000),
            ("2us", 2000),
            ("2µs", 2000),
            ("-1m1s", -61_000_000_000),
            ("+3ns", 3),
        ] {
            assert_eq!(parse_duration(text), Ok(SignedDuration::from_nanos(nanos)), "{text}");
        }
        for text in
            ["", "-", "1", "s", "1d", "1h2", ".s", "1..s", "1 h", "99999999h", "99999999999999999999s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
