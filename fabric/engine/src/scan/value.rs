//! Values out of text, as CSV and JSON write them: each is kept exactly or refused.

use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{Date32Type, TimeUnit};
use chrono::{NaiveDate, Timelike as _, Utc};

/// Whole numbers up to here are all held by a float64.
const FLOAT64_EXACT: f64 = 9_007_199_254_740_992.0;
/// The same of a float32.
const FLOAT32_EXACT: f32 = 16_777_216.0;
/// Digits of the fraction of a second that microseconds hold.
const MICROSECOND_DIGITS: usize = 6;

/// A whole number, also as `1.0` and `1e3`.
pub(super) fn whole(text: &str) -> Option<i128> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => decimal(text, 38, 0),
    }
}

/// Whether a text is what a writer makes of a whole number: no space, no `+`, no leading zero.
pub(super) fn is_canonical_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain && (text == "0" || !digits.starts_with('0'))
}

/// Whether a text is a number in JSON's grammar.
pub(super) fn is_json_number(text: &str) -> bool {
    let is_start = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    text.as_bytes().first().is_some_and(is_start)
        && text.as_bytes().last().is_some_and(u8::is_ascii_digit)
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn is_digits(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a whole number of digits says `value`: it is exactly that, or what writers make of it, who put zeros where
/// the digits that tell it apart end.
fn says(text: &str, exact: &str, shortest: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let digits = format!("{sign}{}", digits.trim_start_matches('0'));
    digits == exact || digits == shortest
}

/// A float64. A whole number that it cannot hold is refused, and so is what is beyond its range; fractions are rounded.
pub(super) fn float64(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    if value.is_infinite() {
        // `inf` is one; digits that are too large are none.
        return (!text.contains(|c: char| c.is_ascii_digit())).then_some(value);
    }
    let is_kept = value.abs() < FLOAT64_EXACT || !is_digits(text) || {
        says(text, &format!("{value:.0}"), &format!("{value}"))
    };
    is_kept.then_some(value)
}

/// A float32, likewise.
pub(super) fn float32(text: &str) -> Option<f32> {
    let value: f32 = text.parse().ok()?;
    if value.is_infinite() {
        return (!text.contains(|c: char| c.is_ascii_digit())).then_some(value);
    }
    let is_kept = value.abs() < FLOAT32_EXACT || !is_digits(text) || {
        says(text, &format!("{value:.0}"), &format!("{value}"))
    };
    is_kept.then_some(value)
}

/// Days since 1970 of an ISO date, `YYYY-MM-DD`; years of other than four digits have a sign.
pub(crate) fn date32(text: &str) -> Option<i32> {
    let year_bytes = text.len().checked_sub("-MM-DD".len())?;
    let (year, rest) = text.split_at_checked(year_bytes)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_year = match year.strip_prefix(['-', '+']) {
        Some(year) => (4..=6).contains(&year.len()) && digits(year),
        None => year.len() == 4 && digits(year),
    };
    let parts = rest.as_bytes();
    let is_iso = parts[0] == b'-' && parts[3] == b'-' && digits(&rest[1..3]) && digits(&rest[4..]);
    (is_year && is_iso).then(|| Date32Type::parse(text))?
}

/// Microseconds since 1970 of an ISO date and time, UTC where it names no zone. Refused where it has more digits.
pub(super) fn timestamp_us(text: &str) -> Option<i64> {
    if let Some(time) = plain_time(text.as_bytes()) {
        return Some(time);
    }
    let time = string_to_datetime(&Utc, text).ok()?;
    // A second that clocks insert would be that of the next minute.
    if time.nanosecond() >= 1_000_000_000 {
        return None;
    }
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    let is_kept = digits.skip(MICROSECOND_DIGITS).all(|digit| digit == b'0');
    is_kept.then(|| time.timestamp_micros())
}

/// The same of `YYYY-MM-DDThh:mm:ss` alone, which most are.
fn plain_time(text: &[u8]) -> Option<i64> {
    const PLACES: [(usize, u8); 4] = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let text: &[u8; 19] = text.try_into().ok()?;
    let is_plain = PLACES.iter().all(|(at, byte)| text[*at] == *byte);
    if !is_plain || !matches!(text[10], b'T' | b' ') {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            Some(number * 10 + digit)
        })
    };
    let (hour, minute, second) = (
        number(&text[11..13])?,
        number(&text[14..16])?,
        number(&text[17..])?,
    );
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let year = i32::try_from(number(&text[..4])?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(&text[5..7])?, number(&text[8..10])?)?;
    let days = i64::from(date.to_epoch_days());
    let seconds = days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    Some(seconds * 1_000_000)
}

/// Microseconds of a time in this unit. Refused where it is between two of them, or beyond their range.
pub(super) fn microseconds(value: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1_000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => (value % 1_000 == 0).then_some(value / 1_000),
    }
}

/// A decimal in units of its last digit. Refused where it is no number, too large, or has more digits.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        let digit = i128::from(digit.to_digit(10)?);
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    let fraction_digits = i64::try_from(fraction.len()).ok()?;
    let mut places = i64::from(scale) - fraction_digits + i64::from(exponent);
    while places != 0 && value != 0 {
        if places > 0 {
            value = value.checked_mul(10)?;
            places -= 1;
        } else if value % 10 == 0 {
            value /= 10;
            places += 1;
        } else {
            return None;
        }
    }
    let is_kept = 10_i128
        .checked_pow(u32::from(precision))
        .is_none_or(|end| value < end);
    let value = if number.starts_with('-') {
        -value
    } else {
        value
    };
    is_kept.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_whole() {
        assert_eq!(whole("-0"), Some(0));
        assert_eq!(whole("1e3"), Some(1000));
        assert_eq!(whole("1.0"), Some(1));
        assert_eq!(whole("18446744073709551616"), Some(1 << 64));
        for none in ["1.5", "1e-1", "", "-", "one", &"9".repeat(40)] {
            assert_eq!(whole(none), None, "{none}");
        }
        assert!(is_canonical_whole("-7") && is_canonical_whole("0"));
        for none in ["007", " 7", "+7", "-0", "", "7 ", "7.0"] {
            assert!(!is_canonical_whole(none), "{none}");
        }
        assert!(is_json_number("-1.5e3"));
        for none in ["01", " 1", "1 ", "+1", "NaN", "1.", "\"1\"", ""] {
            assert!(!is_json_number(none), "{none}");
        }
    }

    #[test]
    fn floats_keep_whole_numbers() {
        assert_eq!(float64("9007199254740992"), Some(9_007_199_254_740_992.0));
        assert_eq!(float64("9007199254740993"), None);
        assert_eq!(float64("-9007199254740994"), Some(-9_007_199_254_740_994.0));
        assert_eq!(float64("9007199254740993.5"), Some(9_007_199_254_740_994.0));
        assert_eq!(float64("1e23"), Some(1e23));
        assert_eq!(float64("1e400"), None);
        assert_eq!(float64("inf"), Some(f64::INFINITY));
        assert_eq!(float64(&"1".repeat(400)), None);
        assert_eq!(
            float64("12345678901234567000"),
            Some(12_345_678_901_234_567_000.0)
        );
        assert_eq!(float64("12345678901234567001"), None);
        assert_eq!(float32("123456790"), Some(123_456_790.0));
        assert_eq!(float32("16777217"), None);
        assert_eq!(float32("0.1"), Some(0.1));
        assert_eq!(float32("1e39"), None);
    }

    #[test]
    fn times_are_iso() {
        assert_eq!(date32("1970-01-02"), Some(1));
        assert_eq!(date32("9999-12-31"), Some(2_932_896));
        for none in [
            "20240105",
            "2024-1-5",
            "2013-10-31 10:20:30",
            "2023-02-29",
            "",
            "24-01-05",
            " 2024-01-05",
        ] {
            assert_eq!(date32(none), None, "{none}");
        }
        assert_eq!(timestamp_us("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(timestamp_us("1970-01-01T01:00:00.000001+01:00"), Some(1));
        assert_eq!(timestamp_us("1970-01-01T00:00:00.0000010Z"), Some(1));
        assert_eq!(timestamp_us("1970-01-01T00:00:00.0000011Z"), None);
        assert_eq!(timestamp_us("1700000000000000"), None);
        for text in [
            "1969-12-31T23:59:59",
            "2024-02-29 00:00:00",
            "0001-01-01T12:34:56",
        ] {
            let slowly = timestamp_us(&format!("{text}.0"));
            assert!(slowly.is_some() && timestamp_us(text) == slowly, "{text}");
        }
        for none in [
            "2024-01-01T10:00:60",
            "2023-02-29T00:00:00",
            "2024-01-01T24:00:00",
            "2024-01-01T0a:00:00",
        ] {
            assert_eq!(timestamp_us(none), None, "{none}");
        }
        assert_eq!(microseconds(1_500, TimeUnit::Nanosecond), None);
        assert_eq!(microseconds(i64::MAX, TimeUnit::Second), None);
    }

    #[test]
    fn decimals_keep_all_digits() {
        let cases = [
            ("12.5", Some(12_500)),
            ("-.5e1", Some(-5_000)),
            ("1e2", Some(100_000)),
            ("0.0001", None),
            ("0.0000e9", Some(0)),
            ("99999.999", Some(99_999_999)),
            ("100000", None),
            ("1e99999", None),
            ("x", None),
            (".", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decimal(text, 8, 3), expected, "{text}");
        }
    }
}
