//! `weft usage`: what all jobs and invocations used and cost, by function.

use std::time::{SystemTime, UNIX_EPOCH};

use weft_client::{Call, Client, path};

use super::receipt::{Line, Receipt};
use crate::failure::Failure;
use crate::terminal::text::{bytes, count, money, nanoseconds};
use crate::terminal::{Output, Side, Table};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Runs `weft usage`, for the last `hours` or for everything.
pub(crate) async fn usage(
    client: &Client,
    hours: Option<u32>,
    output: &mut Output,
) -> Result<(), Failure> {
    let answer = client.send(&call(hours, now_ms())).await?;
    let usage: Receipt = answer.read()?;
    output.either(answer.text()?, || render(&usage, hours))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this machine's clock says which hours are meant"
)]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

fn call(hours: Option<u32>, now_ms: u64) -> Call {
    let mut path = path(&["usage"]);
    if let Some(hours) = hours {
        let from_ms = now_ms.saturating_sub(u64::from(hours) * HOUR_MS);
        path += &format!("?from_ms={from_ms}");
    }
    Call::get(path)
}

fn render(usage: &Receipt, hours: Option<u32>) -> String {
    let sheet = &usage.price_sheet;
    let when = match hours {
        None => String::new(),
        Some(1) => ", the last hour".into(),
        Some(hours) => format!(", the last {hours} hours"),
    };
    let head = format!("usage{when}, prices {} {}", sheet.version, usage.plan);
    let mut table = Table::new(&[
        ("function", Side::Left),
        ("attempts", Side::Right),
        ("cpu", Side::Right),
        ("memory peak", Side::Right),
        ("rows in", Side::Right),
        ("rows out", Side::Right),
        ("amount", Side::Right),
    ]);
    let mut lines: Vec<&Line> = usage.lines.iter().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.amount_micro));
    for line in lines {
        table.row([
            line.function.clone(),
            count(line.billed_attempts),
            nanoseconds(line.billed.cpu_ns()),
            bytes(line.billed.memory_peak_bytes),
            count(line.billed.rows_in),
            count(line.billed.rows_out),
            money(line.amount_micro, &sheet.currency),
        ]);
    }
    // An attempt, and a row, shows in the lines of all functions that it passed.
    table.row([
        "total".to_owned(),
        String::new(),
        nanoseconds(usage.billed.cpu_ns()),
        bytes(usage.billed.memory_peak_bytes),
        String::new(),
        String::new(),
        money(usage.amount_micro, &sheet.currency),
    ]);
    let mut parts = vec![head, table.render()];
    if usage.lines.iter().any(|line| line.function == "-") {
        parts.push("`-` is what the fabric did: it reads, shuffles and writes".into());
    }
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_for_people() {
        let line = |function: &str, amount_micro: u64| {
            serde_json::json!({
                "function": function, "billed_attempts": 2, "amount_micro": amount_micro,
                "billed": { "guest_cpu_ns": 1_000_000_000_u64, "rows_in": 1000, "memory_peak_bytes": 1 << 20 },
            })
        };
        let usage = serde_json::json!({
            "plan": "per-second", "price_sheet": { "version": "2026-11", "currency": "USD" },
            "lines": [line("-", 1), line("weblog@0.1.0/parse", 23)],
            "billed": { "guest_cpu_ns": 2_000_000_000_u64, "memory_peak_bytes": 1 << 20 }, "amount_micro": 24,
        });
        let usage: Receipt = serde_json::from_value(usage).expect("a document of the API");
        let expected = "\
usage, the last 24 hours, prices 2026-11 per-second
function            attempts     cpu  memory peak  rows in  rows out        amount
weblog@0.1.0/parse         2  1.00 s      1.0 MiB    1,000         0  0.000023 USD
-                          2  1.00 s      1.0 MiB    1,000         0  0.000001 USD
total                         2.00 s      1.0 MiB                     0.000024 USD
`-` is what the fabric did: it reads, shuffles and writes";
        assert_eq!(render(&usage, Some(24)), expected);
    }
}
