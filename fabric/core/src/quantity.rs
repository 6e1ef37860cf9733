//! Sizes and durations as people write them in job files.

use std::time::Duration;

/// Parses `"64MiB"`, `"10GB"` or `"4096"` to bytes. Decimal and binary units, whole numbers.
pub fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let (number, unit) = split_unit(text)?;
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(factor)
}

/// Parses `"250ms"`, `"60s"`, `"10m"` or `"2h"`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let (number, unit) = split_unit(text)?;
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(factor).map(Duration::from_millis)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_bytes("256MiB"), Some(256 << 20));
        assert_eq!(parse_bytes("10 GB"), Some(10_000_000_000));
        assert_eq!(parse_bytes("99999999999999GiB"), None);
        assert_eq!(parse_bytes("1.5GiB"), None);
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("10"), None);
    }
}
