use std::fs::File;
use std::path::PathBuf;

use arrow::array::{Array, Int64Array};
use arrow::ipc::reader::StreamReader;
use tokio::sync::mpsc;
use weft_core::JobId;
use weft_core::job::{Destination, OutputFormat, OutputMode, OutputSpec};
use weft_protocol::{FromExecutor, MessageHead, RowsOf, RowsRequest};
use weft_store::{MANIFEST, OutputPlace};

use super::*;
use crate::stream::Pipe;

fn job() -> JobId {
    JobId::new(1, 2)
}

fn batch(first: i64, rows: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(first..first + rows);
    let texts = (first..first + rows).map(|n| (n % 3 != 0).then(|| format!("t{n}")));
    let texts: StringArray = texts.collect();
    RecordBatch::try_from_iter_with_nullable([
        ("n", Arc::new(numbers) as ArrayRef, true),
        ("text", Arc::new(texts) as ArrayRef, true),
    ])
    .expect("of one length")
}

/// An output of files with so many rows each, numbered from 1 on.
fn write(folder: &Path, format: OutputFormat, partition_by: &[&str], files: &[(&str, i64)]) {
    let mut first = 1;
    let mut listed = Vec::new();
    for (name, rows) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is made");
        let rows_of_file = batch(first, *rows);
        let file = File::create(&path).expect("it is made");
        let encoder = Encoder::file(format, rows_of_file.schema_ref(), file);
        let mut encoder = encoder.expect("it has a place for them");
        encoder.write(&rows_of_file).expect("it writes");
        encoder.finish().expect("it ends");
        listed.push(ManifestFile {
            name: (*name).into(),
            key: None,
            rows: (*rows).cast_unsigned(),
            bytes: std::fs::metadata(&path).expect("it is there").len(),
            xxh3: String::new(),
        });
        first += rows;
    }
    let columns = [("day", "int32"), ("n", "int64"), ("text", "utf8")];
    let wanted = columns
        .iter()
        .filter(|(name, _)| *name != "day" || partition_by.contains(name));
    let manifest = Manifest {
        job: job().to_string(),
        output: "result".into(),
        format: format.name().into(),
        schema: wanted
            .map(|(name, of)| ((*name).into(), (*of).into()))
            .collect(),
        partition_by: partition_by.iter().map(|name| (*name).into()).collect(),
        generation: 0,
        files: listed,
        rows: 0,
        bytes: 0,
        ledger: None,
    };
    let text = serde_json::to_string(&manifest).expect("JSON");
    std::fs::write(folder.join(MANIFEST), text).expect("it writes");
}

fn request(folder: &Path, format: OutputFormat, offset: u64, limit: Option<u64>) -> RowsRequest {
    let path = folder.to_str().expect("UTF-8").to_owned();
    RowsRequest {
        request: 7,
        of: RowsOf::Output(Box::new(OutputRows {
            job: job(),
            output: OutputSpec {
                name: "result".into(),
                from: "query".into(),
                format: OutputFormat::Arrow,
                to: Destination::Folder { path },
                partition_by: Vec::new(),
                mode: OutputMode::Error,
            },
            offset,
            limit,
        })),
        format: RowsFormat::File(format),
    }
}

/// The bytes that are sent, for a client that takes all at once.
async fn sent(request: &RowsRequest) -> Result<Vec<u8>, Problem> {
    let (outbox, mut pieces) = mpsc::channel(1_000);
    let RowsOf::Output(wanted) = &request.of else {
        panic!("{request:?}");
    };
    let folder = PathBuf::from(wanted.output.path().expect("a folder"));
    let files = OutputFiles::new(OutputPlace::Folder(folder), &std::env::temp_dir());
    let rows = Rows {
        wanted,
        format: request.format,
        files: files.expect("a folder"),
        out: Outgoing::new(Pipe::new(), request.request, outbox),
    };
    rows.send().await?;
    let mut bytes = Vec::new();
    while let Ok((message, piece)) = pieces.try_recv() {
        assert!(matches!(message, FromExecutor::Output { request: 7 }));
        bytes.extend(piece);
    }
    Ok(bytes)
}

async fn text(request: &RowsRequest) -> String {
    String::from_utf8(sent(request).await.expect("they are sent")).expect("UTF-8")
}

#[tokio::test]
async fn rows_of_all_formats_come_in_order_within_their_bounds() {
    let files = [("part-0", 3), ("part-1", 0), ("part-2", 4)];
    for format in [
        OutputFormat::Arrow,
        OutputFormat::Parquet,
        OutputFormat::Csv,
        OutputFormat::Json,
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), format, &[], &files);
        let csv = |offset, limit| request(folder.path(), OutputFormat::Csv, offset, limit);
        let all = "n,text\n1,t1\n2,t2\n3,\n4,t4\n5,t5\n6,\n7,t7\n";
        assert_eq!(text(&csv(0, None)).await, all, "{format:?}");
        let some = "n,text\n3,\n4,t4\n";
        assert_eq!(text(&csv(2, Some(2))).await, some, "{format:?}");
        for (offset, limit) in [(0, Some(0)), (7, None), (100, Some(1))] {
            assert_eq!(text(&csv(offset, limit)).await, "n,text\n", "{format:?}");
        }
        let json = request(folder.path(), OutputFormat::Json, 3, Some(1));
        assert_eq!(
            text(&json).await,
            "{\"n\":4,\"text\":\"t4\"}\n",
            "{format:?}"
        );
        let arrow = request(folder.path(), OutputFormat::Arrow, 5, None);
        let bytes = sent(&arrow).await.expect("they are sent");
        let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
        assert_eq!(reader.schema().fields().len(), 2, "{format:?}");
        let rows: usize = reader.map(|batch| batch.expect("rows").num_rows()).sum();
        assert_eq!(rows, 2, "{format:?}");
    }
}

#[tokio::test]
async fn messages_come_with_their_lengths() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [("part-0", 3), ("part-1", 2)];
    write(folder.path(), OutputFormat::Parquet, &[], &files);
    let mut asked = request(folder.path(), OutputFormat::Arrow, 0, None);
    asked.format = RowsFormat::Messages;
    let bytes = sent(&asked).await.expect("they are sent");
    let mut rest = bytes.as_slice();
    let mut bodies = Vec::new();
    while let Some((head, parts)) = rest.split_first_chunk() {
        let MessageHead {
            header_bytes,
            body_bytes,
        } = MessageHead::decode(*head);
        let length = u64::from(header_bytes) + body_bytes;
        rest = &parts[usize::try_from(length).expect("a short message")..];
        bodies.push(body_bytes > 0);
    }
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(
        bodies,
        [false, true, true],
        "the schema, and rows of each file"
    );
}

#[tokio::test]
async fn names_of_folders_are_values_of_their_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        ("day=2/part-0", 1),
        ("day=__HIVE_DEFAULT_PARTITION__/part-0", 2),
    ];
    write(folder.path(), OutputFormat::Arrow, &["day"], &files);
    let csv = request(folder.path(), OutputFormat::Csv, 0, None);
    assert_eq!(text(&csv).await, "day,n,text\n2,1,t1\n,2,t2\n,3,\n");
    let arrow = request(folder.path(), OutputFormat::Arrow, 0, Some(1));
    let bytes = sent(&arrow).await.expect("they are sent");
    let mut reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
    let first = reader.next().expect("rows").expect("rows");
    assert_eq!(*first.column(0).data_type(), DataType::Int32);
    assert_eq!(first.column(0).null_count(), 0);
}

#[tokio::test]
async fn rows_that_are_gone_or_of_another_job_are_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = request(folder.path(), OutputFormat::Csv, 0, None);
    let problem = sent(&asked).await.expect_err("there is no manifest");
    assert_eq!(problem.code, ErrorCode::NotFound, "{problem}");
    write(folder.path(), OutputFormat::Csv, &[], &[("part-0", 2)]);
    sent(&asked).await.expect("they are there");
    let mut other = asked.clone();
    if let RowsOf::Output(wanted) = &mut other.of {
        wanted.job = JobId::new(3, 4);
    }
    let problem = sent(&other).await.expect_err("another job's");
    assert!(problem.detail.contains(job().as_str()), "{problem}");
    std::fs::remove_file(folder.path().join("part-0")).expect("it was there");
    let problem = sent(&asked).await.expect_err("a file is gone");
    assert_eq!(problem.code, ErrorCode::BadRecord, "{problem}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_reading() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), OutputFormat::Arrow, &[], &[("part-0", 3)]);
    let asked = request(folder.path(), OutputFormat::Csv, 0, None);
    let (outbox, mut pieces) = mpsc::channel(10);
    let RowsOf::Output(wanted) = &asked.of else {
        panic!("{asked:?}");
    };
    let place = OutputPlace::Folder(folder.path().to_owned());
    let files = OutputFiles::new(place, &std::env::temp_dir());
    let rows = Rows {
        wanted,
        format: asked.format,
        files: files.expect("a folder"),
        out: Outgoing::new(Pipe::new(), asked.request, outbox),
    };
    rows.out.pipe.close();
    rows.send().await.expect_err("nobody waits");
    pieces.try_recv().expect_err("nothing is sent");
}
