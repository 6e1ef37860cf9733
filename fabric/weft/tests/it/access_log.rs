//! Access logs of one week that a seed decides, and what the weblog example must make of them.
//!
//! What is expected is counted while the lines are made, so it owes nothing to any parser.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::random::Random;

const DAYS: u64 = 7;
const PAGES: u64 = 400;
const VISITORS: u64 = 5_000;
/// One line of so many is malformed.
const MALFORMED_EVERY: u64 = 200;
const TOP: usize = 10;

/// What to write.
pub(crate) struct Size {
    /// Bytes of one file, exceeded by less than a line.
    pub(crate) file_bytes: usize,
    pub(crate) n_files: u64,
    /// Files after those, compressed.
    pub(crate) n_gzip_files: u64,
}

/// What a week's logs hold.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    pub(crate) n_lines: u64,
    pub(crate) n_malformed: u64,
    visitors: BTreeMap<String, BTreeSet<u64>>,
    hits: BTreeMap<String, BTreeMap<String, i64>>,
}

impl AccessLog {
    /// Writes `access-NN.log` and `access-NN.log.gz` to `folder`.
    pub(crate) fn write(folder: &Path, size: &Size, seed: u64) -> AccessLog {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        let (mut log, mut random) = (AccessLog::default(), Random::new(seed));
        let n = size.n_files + size.n_gzip_files;
        for file in 0..n {
            let mut text = String::with_capacity(size.file_bytes + 256);
            while text.len() < size.file_bytes {
                let passed = text.len() as f64 / size.file_bytes as f64;
                let day = ((file as f64 + passed) * DAYS as f64 / n as f64) as u64;
                log.add_line(&mut text, day, &mut random);
            }
            if file < size.n_files {
                std::fs::write(folder.join(format!("access-{file:02}.log")), text)
                    .expect("it writes");
            } else {
                let path = folder.join(format!("access-{file:02}.log.gz"));
                let out = File::create(path).expect("it opens");
                let mut out = GzEncoder::new(out, Compression::fast());
                out.write_all(text.as_bytes()).expect("it writes");
                out.finish().expect("it ends");
            }
        }
        log
    }

    /// Most lines are of `day`, some of another one of the week.
    fn add_line(&mut self, text: &mut String, day: u64, random: &mut Random) {
        self.n_lines += 1;
        if random.below(MALFORMED_EVERY) == 0 {
            self.n_malformed += 1;
            text.push_str(match random.below(3) {
                0 => "-\n",
                1 => "10.0.0.1 - - [06/Oct/2025:00:00:00 +0000] \"-\" 408 0 \"-\" \"-\"\n",
                _ => "10.0.0.1 - - [06/Oct/2025:00:00:00 +0000] \"GET /cut",
            });
            if !text.ends_with('\n') {
                text.push('\n');
            }
            return;
        }
        let day = if random.below(10) == 0 {
            random.below(DAYS)
        } else {
            day
        };
        let visitor = random.below(VISITORS);
        // The smaller of two draws: low numbers are frequent, and pages of like rank have like counts, so there are ties.
        let page = random.below(PAGES).min(random.below(PAGES));
        let page = format!("/section-{}/page-{page}.html", page % 7);
        let date = 6 + day;
        let (hour, minute, second) = (random.below(24), random.below(60), random.below(60));
        let address = format!(
            "10.{}.{}.{}",
            visitor >> 16,
            visitor >> 8 & 255,
            visitor & 255
        );
        let query = if random.below(8) == 0 {
            "?from=mail&n=3"
        } else {
            ""
        };
        let status = if random.below(5) == 0 { 404 } else { 200 };
        let bytes = random.below(100_000);
        writeln!(
            text,
            "{address} - - [{date:02}/Oct/2025:{hour:02}:{minute:02}:{second:02} +0000] \"GET {page}{query} HTTP/1.1\" {status} {bytes} \"-\" \"Mozilla/5.0 (test)\""
        )
        .expect("text takes all");
        let day = format!("2025-10-{date:02}");
        self.visitors
            .entry(day.clone())
            .or_default()
            .insert(visitor);
        *self.hits.entry(day).or_default().entry(page).or_default() += 1;
    }

    /// The rows of `daily`, by day.
    pub(crate) fn daily(&self) -> Vec<(String, i64)> {
        let count = |visitors: &BTreeSet<u64>| i64::try_from(visitors.len()).expect("few");
        let days = self.visitors.iter();
        days.map(|(day, visitors)| (day.clone(), count(visitors)))
            .collect()
    }

    /// The rows of `top`, by day and rank.
    pub(crate) fn top(&self) -> Vec<(String, i32, String, i64)> {
        let mut rows = Vec::new();
        for (day, hits) in &self.hits {
            let mut pages: Vec<(&String, i64)> = hits.iter().map(|(page, n)| (page, *n)).collect();
            // Stable: pages of equal hits stay in the order of the map, which is that of their paths.
            pages.sort_by_key(|(_, hits)| -hits);
            let ranked = (1..).zip(pages.into_iter().take(TOP));
            rows.extend(ranked.map(|(rank, (page, hits))| (day.clone(), rank, page.clone(), hits)));
        }
        rows
    }
}
