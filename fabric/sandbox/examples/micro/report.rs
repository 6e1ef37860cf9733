//! Numbers of all rounds, and where they were taken.

use std::collections::BTreeMap;
use std::process::Command;

/// Values by row, in the order of first mention.
pub(crate) struct Report {
    rows: Vec<(String, &'static str, Vec<f64>)>,
    load_before: String,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            rows: Vec::new(),
            load_before: load(),
        }
    }
}

impl Report {
    pub(crate) fn add(&mut self, row: &str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|(name, ..)| name == row) {
            Some((_, _, values)) => values.push(value),
            None => self.rows.push((row.to_owned(), unit, vec![value])),
        }
    }

    pub(crate) fn print(&mut self) {
        println!(
            "commit {}",
            answer("git", &["describe", "--always", "--dirty"])
        );
        println!("machine {}, {} cores", cpu(), cores());
        println!("load average {} before, {} after", self.load_before, load());
        println!(
            "{:<58} {:>10} {:>10} {:>10}",
            "", "median", "smallest", "largest"
        );
        for (name, unit, values) in &mut self.rows {
            values.sort_by(f64::total_cmp);
            let (median, smallest) = (values[values.len() / 2], values[0]);
            let largest = values[values.len() - 1];
            println!("{name:<58} {median:>10.2} {smallest:>10.2} {largest:>10.2}  {unit}");
        }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn answer(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    fields
        .get("model name")
        .copied()
        .unwrap_or("unknown")
        .to_owned()
}
