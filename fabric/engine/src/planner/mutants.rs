//! Files that are cut, flipped, spliced and lied in: reading one gives rows or an error of the file, and never takes the process
//! along.
//!
//! `WEFT_MUTANTS` says how many there are of each kind, and `WEFT_TEST_SEED` from which seed.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use weft_core::job::{BadRecords, CsvFormat, InputFormat, InputSpec, UnknownFields};
use weft_core::{ErrorCode, Problem};
use weft_sandbox::monotonic_ns;

use super::inputs::{Listed, list};
use crate::plan::FilesPlan;
use crate::scan::{Inputs, Reader};

const MUTANTS: u64 = 1500;
/// Nothing that is a few kilobytes long may take longer.
const PATIENCE_NS: u64 = 20_000_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn rows() -> RecordBatch {
    let numbers = || (0..200i64).map(|n| (n % 7 != 0).then_some(n * 1_000_003));
    let words = ["alpha", "beta, \"gamma\"", "δέλτα", ""];
    let lists = (0..200).map(|n| (n % 5 != 0).then(|| (0..n % 4).map(Some).collect::<Vec<_>>()));
    let members: Vec<(Arc<Field>, ArrayRef)> = vec![
        (
            Arc::new(Field::new("x", DataType::Int64, true)),
            Arc::new(Int64Array::from_iter(numbers())),
        ),
        (
            Arc::new(Field::new("s", DataType::Utf8, true)),
            Arc::new(StringArray::from_iter(
                (0..200).map(|n| (n % 3 != 0).then_some(words[n % 4])),
            )),
        ),
    ];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from_iter(numbers()))),
        (
            "text",
            Arc::new(StringArray::from_iter_values(
                (0..200).map(|n| words[n % 4]),
            )),
        ),
        (
            "flag",
            Arc::new(BooleanArray::from_iter((0..200).map(|n| Some(n % 2 == 0)))),
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter(numbers())),
        ),
        (
            "word",
            Arc::new(
                (0..200)
                    .map(|n| words[n % 4])
                    .collect::<DictionaryArray<Int32Type>>(),
            ),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        ),
        ("pair", Arc::new(StructArray::from(members))),
    ];
    RecordBatch::try_from_iter(columns).expect("equally long")
}

fn parquet(compression: Compression) -> Vec<u8> {
    let (rows, mut bytes) = (rows(), Vec::new());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).expect("it opens");
    for _ in 0..2 {
        writer.write(&rows).expect("it writes");
        writer.flush().expect("a row group");
    }
    writer.close().expect("it ends");
    bytes
}

fn arrow(file: bool) -> Vec<u8> {
    let (rows, mut bytes) = (rows(), Vec::new());
    if file {
        let mut writer = FileWriter::try_new(&mut bytes, &rows.schema()).expect("it opens");
        writer.write(&rows).expect("it writes");
        writer.finish().expect("it ends");
    } else {
        let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema()).expect("it opens");
        writer.write(&rows).expect("it writes");
        writer.write(&rows).expect("it writes");
        writer.finish().expect("it ends");
    }
    bytes
}

fn csv() -> Vec<u8> {
    let line = |n: u32| format!("{n},\"some \"\"text\"\"\n{n}\",{}.5,2026-01-02\r\n", n * 3);
    let lines: String = (0..100).map(line).collect();
    format!("id,text,price,day\n{lines}").into_bytes()
}

fn json() -> Vec<u8> {
    let line =
        |n: u32| format!("{{\"id\": {n}, \"tags\": [\"a\", null], \"in\": {{\"x\": {n}.5}}}}\n");
    (0..100).map(line).collect::<String>().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("it writes");
    encoder.finish().expect("it ends")
}

/// Changes a few bytes, or many.
fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => {
                let from = random.below(original.len());
                let part = &original[from..(from + random.below(64)).min(original.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            2 => {
                let extremes = [
                    0u64,
                    1,
                    0x7fff_ffff,
                    0x8000_0000,
                    u64::from(u32::MAX),
                    u64::MAX,
                    1 << 40,
                ];
                let lie = extremes[random.below(extremes.len())].to_le_bytes();
                let end = (at + if random.below(2) == 0 { 4 } else { 8 }).min(bytes.len());
                let n = end - at.min(end);
                bytes[end - n..end].copy_from_slice(&lie[..n]);
            }
            3 => {
                let end = (at + random.below(100)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

/// Reads all of a file, as planning and a task would.
fn read(path: &Path, format: &InputFormat) -> Result<u64, Problem> {
    let input = InputSpec {
        name: "mutants".into(),
        format: format.clone(),
        uris: vec![path.display().to_string()],
        bad_records: BadRecords::Skip,
    };
    let Listed { schema, splits, .. } = list(&Inputs::default(), &input)?;
    let plan = FilesPlan {
        input: input.name,
        format: input.format,
        schema,
        splits,
        bad_records: input.bad_records,
        dead_letters: None,
    };
    let mut rows = 0;
    for split in &plan.splits {
        let mut reader = Reader::open(&Inputs::default(), &plan, split)?;
        while let Some(batch) = reader.next()? {
            rows += batch.num_rows() as u64;
        }
    }
    Ok(rows)
}

fn check(name: &str, format: &InputFormat, original: &[u8]) {
    let variable = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seed, count) = (
        variable("WEFT_TEST_SEED", 7),
        variable("WEFT_MUTANTS", MUTANTS),
    );
    eprintln!("{name}: WEFT_TEST_SEED={seed}, {count} mutants");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, original).expect("it writes");
    assert!(read(&path, format).expect("it is whole") >= 100);
    // Panics that are caught need not be printed a thousand times.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::untrusted::is_decoding() {
            report(panic);
        }
    }));
    let mut random = Random(seed);
    let mut refused = 0;
    for mutant in 0..count {
        std::fs::write(&path, mutate(original, &mut random)).expect("it writes");
        let began_ns = monotonic_ns();
        match read(&path, format) {
            Ok(_) => {}
            Err(problem) => {
                let blamed = matches!(
                    problem.code,
                    ErrorCode::BadRecord | ErrorCode::SchemaMismatch
                );
                assert!(blamed, "{name}, mutant {mutant}: {problem:?}");
                refused += 1;
            }
        }
        let took_ns = monotonic_ns() - began_ns;
        assert!(
            took_ns < PATIENCE_NS,
            "{name}, mutant {mutant}: {took_ns} ns"
        );
    }
    eprintln!("{name}: {refused} refused");
    assert!(refused > count / 20, "{name}: mutants are too tame");
}

fn all_columns() -> InputFormat {
    InputFormat::Parquet {
        columns: Vec::new(),
        filter: Vec::new(),
    }
}

#[test]
fn mutants_of_parquet() {
    check(
        "plain.parquet",
        &all_columns(),
        &parquet(Compression::UNCOMPRESSED),
    );
    check(
        "snappy.parquet",
        &all_columns(),
        &parquet(Compression::SNAPPY),
    );
    let filter = ["n > 0", "text != alpha"];
    let filter = filter.map(|text| text.parse().expect("a comparison"));
    check(
        "filtered.parquet",
        &InputFormat::Parquet {
            columns: Vec::new(),
            filter: filter.to_vec(),
        },
        &parquet(Compression::UNCOMPRESSED),
    );
    check(
        "zstd.parquet",
        &all_columns(),
        &parquet(Compression::ZSTD(ZstdLevel::default())),
    );
}

#[test]
fn mutants_of_arrow() {
    let format = InputFormat::Arrow {
        columns: Vec::new(),
    };
    check("stream.arrow", &format, &arrow(false));
    check("file.arrow", &format, &arrow(true));
}

#[test]
fn mutants_of_text() {
    let format = InputFormat::Csv(CsvFormat {
        header: true,
        delimiter: b',',
        quote: Some(b'"'),
        columns: Vec::new(),
    });
    check("rows.csv.gz", &format, &gzip(&csv()));
    let zstd = zstd::encode_all(csv().as_slice(), 1).expect("it is encoded");
    check("rows.csv.zst", &format, &zstd);
    let format = InputFormat::Json {
        columns: Vec::new(),
        unknown_fields: UnknownFields::Ignore,
    };
    check("rows.json.gz", &format, &gzip(&json()));
}
