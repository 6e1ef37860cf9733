//! Endings of files: a pattern such as `*.csv*` finds `trips.csv.bak` as well, whose rows nobody means. And the format
//! that an ending asks for.

use std::path::Path;

use weft_core::job::{InputFormat, InputSpec};
use weft_core::{ErrorCode, Problem};

use super::objects::format_of;
use crate::scan::Compression;

/// Files that an error names.
const MAX_NAMED: usize = 3;

/// Refuses files of a table whose endings are those of other files, unless a pattern writes the ending itself, as
/// `*.tbl` does. Files without an ending pass.
///
/// Errors: `InvalidJob`, with the first of these files.
pub(super) fn check(input: &InputSpec, files: &[(String, u64)]) -> Result<(), Problem> {
    let Some(known) = known(&input.format) else {
        return Ok(());
    };
    let written: Vec<&str> = input.uris.iter().filter_map(|uri| written(uri)).collect();
    let is_meant =
        |path: &str| is_known(path, known) || written.iter().any(|ending| path.ends_with(ending));
    let others = files.iter().map(|(path, _)| path.as_str());
    let others: Vec<&str> = others.filter(|path| !is_meant(path)).collect();
    match others.is_empty() {
        true => Ok(()),
        false => Err(refused(input, &others)),
    }
}

/// Endings of the files of a format. Nothing for lines of text, which are in files of any name.
fn known(format: &InputFormat) -> Option<&'static [&'static str]> {
    match format {
        InputFormat::Csv(_) => Some(&["csv", "tsv"]),
        InputFormat::Json { .. } => Some(&["json", "jsonl", "ndjson"]),
        InputFormat::Parquet { .. } => Some(&["parquet"]),
        InputFormat::Arrow { .. } => Some(&["arrow", "arrows", "feather", "ipc"]),
        InputFormat::Text { .. } => None,
    }
}

/// The format that the name of a folder says by its ending, and Parquet if it says none: `COPY .. TO 'x.csv'`.
///
/// Errors: `InvalidJob` for the ending of files that are not written.
pub(super) fn written_format(location: &str) -> Result<&'static str, Problem> {
    let ending = Path::new(location).extension().unwrap_or_default();
    let ending = ending.to_ascii_lowercase();
    match ending.to_str().unwrap_or_default() {
        "csv" => Ok("csv"),
        "json" | "jsonl" | "ndjson" => Ok("json"),
        "arrow" | "arrows" | "feather" | "ipc" => Ok("arrow"),
        "tsv" | "txt" | "log" | "gz" | "gzip" | "zst" | "zstd" => Err(Problem::new(
            ErrorCode::InvalidJob,
            format!(
                "`{location}`: files are written as Parquet, CSV with commas, JSON or Arrow, none of which has this \
                 ending: choose one by STORED AS, or another ending"
            ),
        )),
        _ => Ok("parquet"),
    }
}

/// Returns whether a file has a known ending, behind which that of a compression may stand, or none at all.
fn is_known(path: &str, known: &[&str]) -> bool {
    let name = Path::new(path.rsplit('/').next().unwrap_or(path));
    let bare = match Compression::named(path) {
        Ok(Compression::None) => name,
        // One that is not read has an error of its own.
        _ => Path::new(name.file_stem().unwrap_or_default()),
    };
    bare.extension()
        .is_none_or(|ending| known.iter().any(|one| ending.eq_ignore_ascii_case(one)))
}

/// The ending that a pattern writes, behind its last `*`, `?` or `[..]`.
fn written(pattern: &str) -> Option<&str> {
    let name = pattern.rsplit('/').next().unwrap_or(pattern);
    let ending = name.rsplit(['*', '?', ']']).next().unwrap_or(name);
    ending.contains('.').then_some(ending)
}

fn refused(input: &InputSpec, others: &[&str]) -> Problem {
    let (table, format) = (&input.name, format_of(&input.format));
    let named: Vec<String> = others
        .iter()
        .take(MAX_NAMED)
        .map(|path| format!("`{path}`"))
        .collect();
    let more = match others.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!(
        "`{table}` reads {format}, and its location finds files with other endings: {}{more}. Name the files that are \
         meant by their ending, as in `*.{format}`, or move the others away",
        named.join(", ")
    );
    Problem::new(ErrorCode::InvalidJob, detail)
}

#[cfg(test)]
mod tests {
    use weft_core::job::{BadRecords, CsvFormat, UnknownFields};

    use super::*;

    fn csv() -> InputFormat {
        InputFormat::Csv(CsvFormat {
            header: true,
            delimiter: b',',
            quote: None,
            columns: Vec::new(),
        })
    }

    fn checked(format: InputFormat, uri: &str, files: &[&str]) -> Result<(), Problem> {
        let input = InputSpec {
            name: "trips".into(),
            format,
            uris: vec![uri.into()],
            bad_records: BadRecords::Fail,
        };
        let files = files.iter().map(|name| (format!("/data/{name}"), 1));
        check(&input, &files.collect::<Vec<_>>())
    }

    #[test]
    fn files_with_known_endings_are_read() {
        let texts = [
            "a.csv",
            "B.CSV",
            "c.csv.gz",
            "d.csv.zst",
            "e.tsv",
            "part-0",
            "f.gz",
        ];
        assert_eq!(checked(csv(), "/data/*", &texts), Ok(()));
        let json = InputFormat::Json {
            columns: Vec::new(),
            unknown_fields: UnknownFields::default(),
        };
        let lines = ["a.json", "b.jsonl.gz", "c.ndjson"];
        assert_eq!(checked(json, "/data/*", &lines), Ok(()));
        let logs = InputFormat::Text { utf8: true };
        assert_eq!(checked(logs, "/data/*", &["syslog.1", "a.log"]), Ok(()));
    }

    #[test]
    fn files_with_other_endings_are_named() {
        let check = |files: &[&str], named: &[&str], unnamed: &[&str]| {
            let problem = checked(csv(), "/data/*.csv*", files).expect_err("it is refused");
            assert_eq!(problem.code, ErrorCode::InvalidJob);
            for name in named {
                assert!(problem.detail.contains(name), "`{name}`: {problem}");
            }
            for name in unnamed {
                assert!(!problem.detail.contains(name), "`{name}`: {problem}");
            }
        };
        check(
            &["a.csv", "a.csv.bak"],
            &["`/data/a.csv.bak`", "*.csv"],
            &["`/data/a.csv`", "more"],
        );
        check(
            &["b.csv~", "a.csv.1.gz"],
            &["b.csv~", "a.csv.1.gz"],
            &["more"],
        );
        let many = ["1.bak", "2.bak", "3.bak", "4.bak", "5.bak"];
        check(&many, &["1.bak", "3.bak", "and 2 more"], &["4.bak"]);
    }

    #[test]
    fn the_ending_of_a_folder_is_a_format() {
        for (location, format) in [
            ("out/x.csv", "csv"),
            ("s3://lake/x.CSV/", "csv"),
            ("x.jsonl", "json"),
            ("x.feather", "arrow"),
            ("x.parquet/", "parquet"),
            ("out/v1.2", "parquet"),
            ("out.csv/x", "parquet"),
        ] {
            assert_eq!(written_format(location), Ok(format), "{location}");
        }
        for location in ["x.tsv", "x.csv.gz", "x.txt/"] {
            let problem = written_format(location).expect_err(location);
            assert!(problem.detail.contains("STORED AS"), "{problem}");
        }
    }

    #[test]
    fn an_ending_that_the_location_writes_is_meant() {
        for (uri, file) in [
            ("/data/*.tbl", "a.tbl"),
            ("/data/a.csv.bak", "a.csv.bak"),
            ("/data/[ab].csv.old", "b.csv.old"),
            ("s3://lake/data/*.dat.gz", "a.dat.gz"),
        ] {
            assert_eq!(checked(csv(), uri, &[file]), Ok(()), "{uri}");
        }
        let parquet = InputFormat::Parquet {
            columns: Vec::new(),
            filter: Vec::new(),
        };
        // A folder that a statement has named like a file.
        checked(csv(), "/data/x.csv", &["x.csv/part-0.parquet"]).expect_err("other files");
        checked(parquet, "/data/*.parquet*", &["a.parquet.bak"]).expect_err("a copy");
    }
}
