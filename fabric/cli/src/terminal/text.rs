//! Numbers and foreign text as people read them.

/// `text` with control characters other than line breaks and tabs replaced, so that it cannot
/// command a terminal.
pub(crate) fn printable(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2 files`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// `1536` as `1.5 KiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = number as f64 / 1024.0;
    let mut unit = 0;
    if number < 1024 {
        return format!("{number} B");
    }
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// Nanoseconds in the unit that suits them.
pub(crate) fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.2} s", ns as f64 / 1e9),
        _ => format!(
            "{} min {:02} s",
            ns / 60_000_000_000,
            ns / 1_000_000_000 % 60
        ),
    }
}

/// Milliseconds in the unit that suits them.
pub(crate) fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ => nanoseconds(ms.saturating_mul(1_000_000)),
    }
}

/// Micro-units of a currency, to the last one.
pub(crate) fn money(micro: u64, currency: &str) -> String {
    format!(
        "{}.{:06} {currency}",
        count(micro / 1_000_000),
        micro % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(1000, "row"), "1,000 rows");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(money(1_234_000_013, "USD"), "1,234.000013 USD");
    }

    #[test]
    fn durations() {
        assert_eq!(nanoseconds(17), "17 ns");
        assert_eq!(nanoseconds(1_500), "1.5 µs");
        assert_eq!(nanoseconds(350_000_000), "350.0 ms");
        assert_eq!(nanoseconds(1_230_000_000), "1.23 s");
        assert_eq!(nanoseconds(125_000_000_000), "2 min 05 s");
        assert_eq!(milliseconds(0), "0 ms");
        assert_eq!(milliseconds(999), "999 ms");
        assert_eq!(milliseconds(1_230), "1.23 s");
    }
}
