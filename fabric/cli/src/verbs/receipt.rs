//! `weft receipt`: what a job used and costs.

use std::time::Duration;

use serde::Deserialize;
use weft_client::{Answer, Call, Client, path};

use crate::failure::Failure;
use crate::terminal::text::{bytes, count, counted, money, nanoseconds};
use crate::terminal::{Output, Side, Table};
use crate::verbs::jobs::id_of;

/// The part of a [`weft_core::Receipt`] that people read. Only `--json` has all meters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Receipt {
    job: String,
    pub(super) plan: String,
    pub(super) price_sheet: PriceSheet,
    pub(super) lines: Vec<Line>,
    pub(super) billed: Meters,
    platform: Meters,
    pub(super) amount_micro: u64,
    amount_per_millisecond_micro: u64,
    provisional: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PriceSheet {
    pub(super) version: String,
    pub(super) currency: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    stage: String,
    pub(super) function: String,
    pub(super) billed_attempts: u64,
    pub(super) billed: Meters,
    platform_attempts: u64,
    pub(super) amount_micro: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Meters {
    guest_cpu_ns: u64,
    native_cpu_ns: u64,
    pub(super) memory_peak_bytes: u64,
    pub(super) rows_in: u64,
    pub(super) rows_out: u64,
    get_requests: u64,
    put_requests: u64,
    list_requests: u64,
    head_requests: u64,
    delete_requests: u64,
}

impl Meters {
    pub(super) fn cpu_ns(&self) -> u64 {
        self.guest_cpu_ns.saturating_add(self.native_cpu_ns)
    }
}

/// The call that reads the receipt of job `id`.
pub(crate) fn call(id: &str) -> Call {
    Call::get(path(&["jobs", id, "receipt"]))
}

/// Tries to read a receipt that is final, and how long to wait between them: what runs of a job
/// that ended otherwise than well is being stopped.
const FINAL_TRIES: u32 = 40;
const FINAL_PAUSE: Duration = Duration::from_millis(25);

/// The receipt of a job that has just ended: final, unless that takes too long.
pub(crate) async fn of_ended(client: &Client, id: &str) -> Result<Answer, Failure> {
    let mut tries = 1;
    loop {
        let answer = client.send(&call(id)).await?;
        if tries == FINAL_TRIES || !answer.read::<Receipt>()?.provisional {
            return Ok(answer);
        }
        tries += 1;
        tokio::time::sleep(FINAL_PAUSE).await;
    }
}

/// Runs `weft receipt`.
pub(crate) async fn receipt(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let id = id_of(client, id).await?;
    let answer = client.send(&call(&id)).await?;
    let receipt: Receipt = answer.read()?;
    output.either(answer.text()?, || render(&receipt))
}

/// One line, for the end of `weft run`.
pub(crate) fn summary(receipt: &Receipt) -> String {
    format!(
        "  billed: {} of CPU, {} at most; {} ({}); `weft receipt {}` has the lines",
        nanoseconds(receipt.billed.cpu_ns()),
        bytes(receipt.billed.memory_peak_bytes),
        money(receipt.amount_micro, &receipt.price_sheet.currency),
        receipt.plan,
        receipt.job
    )
}

/// The whole receipt.
fn render(receipt: &Receipt) -> String {
    let sheet = &receipt.price_sheet;
    let provisional = if receipt.provisional {
        ", provisional: something of the job still runs"
    } else {
        ""
    };
    let head = format!(
        "receipt of {}, prices {} {}{provisional}",
        receipt.job, sheet.version, receipt.plan
    );
    let mut parts = vec![head, lines_table(receipt).render()];
    if receipt.lines.iter().any(|line| line.function == "-") {
        parts.push("`-` is what the fabric did: it reads, shuffles and writes".into());
    }
    parts.extend(requests(&receipt.billed));
    parts.extend(on_the_house(receipt));
    let quantum = receipt.plan.strip_prefix("per-").unwrap_or(&receipt.plan);
    parts.push(format!(
        "each line's CPU is rounded up to a {quantum}; under the per-millisecond plan: {}",
        money(receipt.amount_per_millisecond_micro, &sheet.currency)
    ));
    parts.join("\n")
}

fn lines_table(receipt: &Receipt) -> Table {
    let currency = &receipt.price_sheet.currency;
    let mut table = Table::new(&[
        ("stage", Side::Left),
        ("function", Side::Left),
        ("attempts", Side::Right),
        ("guest cpu", Side::Right),
        ("native cpu", Side::Right),
        ("memory peak", Side::Right),
        ("rows in", Side::Right),
        ("rows out", Side::Right),
        ("amount", Side::Right),
    ]);
    let cells = |stage: &str, function: &str, attempts: u64, meters: &Meters, amount_micro: u64| {
        [
            stage.to_owned(),
            function.to_owned(),
            count(attempts),
            nanoseconds(meters.guest_cpu_ns),
            nanoseconds(meters.native_cpu_ns),
            bytes(meters.memory_peak_bytes),
            count(meters.rows_in),
            count(meters.rows_out),
            money(amount_micro, currency),
        ]
    };
    for line in &receipt.lines {
        table.row(cells(
            &line.stage,
            &line.function,
            line.billed_attempts,
            &line.billed,
            line.amount_micro,
        ));
    }
    let mut total = cells("total", "", 0, &receipt.billed, receipt.amount_micro);
    // An attempt, and a row, shows in the lines of all functions that it passed.
    for column in [2, 6, 7] {
        total[column].clear();
    }
    table.row(total);
    table
}

/// The line about requests to buckets, if there were any.
fn requests(billed: &Meters) -> Option<String> {
    let kinds = [
        ("get", billed.get_requests),
        ("put", billed.put_requests),
        ("list", billed.list_requests),
        ("head", billed.head_requests),
        ("delete", billed.delete_requests),
    ];
    let kinds = kinds.into_iter().filter(|(_, n)| *n > 0);
    let kinds: Vec<String> = kinds
        .map(|(kind, n)| format!("{} {kind}", count(n)))
        .collect();
    (!kinds.is_empty()).then(|| format!("requests to stores: {}", kinds.join(", ")))
}

/// The line about what the platform bears, where it bears anything.
fn on_the_house(receipt: &Receipt) -> Option<String> {
    let attempts: u64 = receipt
        .lines
        .iter()
        .map(|line| line.platform_attempts)
        .sum();
    let cpu = nanoseconds(receipt.platform.cpu_ns());
    (attempts > 0).then(|| format!("not billed: {}, {cpu} of CPU", counted(attempts, "attempt")))
}

#[cfg(test)]
mod tests {
    use weft_core::{FunctionUsage, Meters, PriceSheet};

    use super::*;

    fn example() -> Receipt {
        let parse = FunctionUsage {
            stage: "visits".into(),
            function: "weblog@0.1.0/parse".into(),
            billed_attempts: 24,
            billed: Meters {
                guest_cpu_ns: 1_234_000_000,
                native_cpu_ns: 56_000_000,
                memory_peak_bytes: 12 << 20,
                memory_byte_ns: u128::MAX,
                rows_in: 1_000_000,
                rows_out: 999_000,
                ..Meters::default()
            },
            platform_attempts: 1,
            platform: Meters {
                guest_cpu_ns: 5_000_000,
                ..Meters::default()
            },
        };
        let scan = FunctionUsage {
            stage: "visits".into(),
            function: "-".into(),
            billed: Meters {
                get_requests: 1_200,
                put_requests: 24,
                ..Meters::default()
            },
            ..FunctionUsage::default()
        };
        let sheet = PriceSheet {
            memory_gib_hour_micro: 0,
            ..PriceSheet::default()
        };
        let receipt = weft_core::Receipt::new("job-1".into(), &[parse, scan], sheet, true);
        let json = serde_json::to_string(&receipt).expect("plain data");
        serde_json::from_str(&json).expect("what the core writes, the command line reads")
    }

    #[test]
    fn receipts_for_people() {
        let expected = "\
receipt of job-1, prices 2026-12 per-second, provisional: something of the job still runs
stage   function            attempts  guest cpu  native cpu  memory peak    rows in  rows out        amount
visits  weblog@0.1.0/parse        24     1.23 s     56.0 ms     12.0 MiB  1,000,000   999,000  0.000023 USD
visits  -                          0       0 ns        0 ns          0 B          0         0  0.000600 USD
total                                    1.23 s     56.0 ms     12.0 MiB                       0.000623 USD
`-` is what the fabric did: it reads, shuffles and writes
requests to stores: 1,200 get, 24 put
not billed: 1 attempt, 5.0 ms of CPU
each line's CPU is rounded up to a second; under the per-millisecond plan: 0.000615 USD";
        assert_eq!(render(&example()), expected);
    }

    #[test]
    fn the_summary_is_one_line() {
        let expected = "  billed: 1.29 s of CPU, 12.0 MiB at most; 0.000623 USD (per-second); `weft receipt job-1` has the lines";
        assert_eq!(summary(&example()), expected);
    }
}
