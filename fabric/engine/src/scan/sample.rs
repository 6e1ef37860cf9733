//! The size of records, going by the first ones of a file.

use weft_core::job::InputFormat;

use super::Inputs;
use super::blocks::{Dialect, ends, first_block};

/// Number of the first records of a file, and their bytes, decompressed. Nothing if it has none or cannot be read, of
/// which the task that reads it says more.
pub(crate) fn first_records(
    inputs: &Inputs,
    path: &str,
    file_bytes: u64,
    format: &InputFormat,
) -> Option<(u64, u64)> {
    let dialect = Dialect::of(format);
    let block = first_block(inputs, path, file_bytes, dialect).ok()?;
    let mut start = 0;
    let records = ends(dialect, &block, 0).filter(|end| {
        let record = &block[std::mem::replace(&mut start, *end)..*end];
        !record.trim_ascii().is_empty()
    });
    // The last one of a file may lack its end.
    let n = records.count().max(1);
    (!block.is_empty()).then_some((n as u64, block.len() as u64))
}

#[cfg(test)]
mod tests {
    use weft_core::job::CsvFormat;

    use super::*;

    #[test]
    fn first_records_have_a_size() {
        let (folder, inputs) = (tempfile::tempdir().expect("a folder"), Inputs::default());
        let csv = InputFormat::Csv(CsvFormat {
            header: true,
            delimiter: b',',
            quote: Some(b'"'),
            columns: Vec::new(),
        });
        let lines = InputFormat::Text { utf8: true };
        for (format, text, expected) in [
            (&lines, "1234567\n123\n123\n", Some((3, 16))),
            (&lines, "12345", Some((1, 5))),
            (&csv, "a,b\r\n\"x\r\n\",2\r\n", Some((2, 14))),
            (&lines, "", None),
        ] {
            let path = folder.path().join("records");
            std::fs::write(&path, text).expect("it writes");
            let path = path.to_str().expect("text");
            let found = first_records(&inputs, path, text.len() as u64, format);
            assert_eq!(found, expected, "{text:?}");
        }
        assert_eq!(first_records(&inputs, "/nowhere", 9, &lines), None);
    }
}
