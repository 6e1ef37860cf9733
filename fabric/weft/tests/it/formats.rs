//! Inputs and outputs of all formats: the same rows whichever way they went, bad records by policy, folders written to again.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fixture::Place;
use crate::folder;
use crate::job;
use crate::outputs::{self, rows};
use crate::random::Random;
use crate::server::{Server, Setup};

const SCHEMA: [&str; 6] = [
    "id int64",
    "name utf8",
    "price decimal128(12, 2)",
    "day date32",
    "at timestamp-us",
    "ok boolean",
];
/// Enough for several splits.
const ROWS: usize = 60_000;

struct Desk {
    place: Place,
    server: Server,
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        job::deploy(&server, "mirror");
        Desk { place, server }
    }

    /// A job that passes rows through, from an input to an output.
    fn job(&self, input: &Value, output: &Value, function: &str) -> Value {
        let mut output = output.clone();
        output["from"] = json!("passed");
        json!({
            "name": "formats",
            "input": { "rows": input },
            "stage": [{ "name": "passed", "from": "rows", "map": function }],
            "output": { "passed": output },
        })
    }

    fn pass(&self, input: &Value, output: &Value) -> Value {
        job::run(&self.server, &self.job(input, output, "mirror/pass"))
    }

    /// The problem of a job that passes rows through, and fails.
    fn fails(&self, input: &Value, output: &Value, code: &str) -> String {
        let job = self.job(input, output, "mirror/pass");
        let ended = job::wait(&self.server, &job::submit(&self.server, &job));
        assert_eq!(ended["problem"]["code"], code, "{ended:#}");
        ended["problem"]["detail"]
            .as_str()
            .expect("a text")
            .to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    fn out(&self, name: &str, format: &str) -> Value {
        json!({ "format": format, "uri": self.path(name) })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("it writes");
        path
    }

    fn rows(&self, output: &str) -> Vec<String> {
        rows(&self.path(output))
    }
}

/// A table as CSV with quotes and line ends within values, and its rows as tests print them.
fn table() -> (String, Vec<String>) {
    let mut random = Random::seeded("formats", 5);
    let (mut csv, mut expected) = (String::from("id,name,price,day,at,ok\n"), Vec::new());
    for id in 0..ROWS {
        let cents = random.below(1_000_000);
        let (day, second, ok) = (1 + random.below(28), random.below(60), random.below(2) == 1);
        let name = match random.below(5) {
            0 => "plain".to_owned(),
            1 => "with, a comma".to_owned(),
            2 => "with \"quotes\"".to_owned(),
            3 => "with\na line end".to_owned(),
            _ => format!("ünïcode {id}"),
        };
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let price = format!("{}.{:02}", cents / 100, cents % 100);
        let (day, at) = (
            format!("2026-02-{day:02}"),
            format!("2026-02-{day:02}T01:02:{second:02}"),
        );
        writeln!(csv, "{id},{quoted},{price},{day},{at},{ok}").expect("text grows");
        expected.push(format!("{id}|{name}|{price}|{day}|{at}|{ok}"));
    }
    expected.sort();
    (csv, expected)
}

/// Names the first row that differs: there are too many to print.
fn check(found: &[String], expected: &[String], what: &str) {
    let differ = found
        .iter()
        .zip(expected)
        .find(|(found, expected)| found != expected);
    assert_eq!(differ, None, "{what}");
    let last = found.last();
    assert_eq!(found.len(), expected.len(), "{what}: the last is {last:?}");
}

#[test]
fn rows_are_the_same_in_every_format() {
    let desk = Desk::new();
    let (csv, expected) = table();
    let path = desk.write("table.csv", csv.as_bytes());
    let read = |name: &str, format: &str| json!({ "format": format, "uri": desk.path(name).join(format!("*.{format}")) });
    let csv_input = json!({ "format": "csv", "uri": path, "schema": SCHEMA });

    let ended = desk.pass(&csv_input, &desk.out("parquet", "parquet"));
    let tasks = ended["stages"][0]["tasks_total"].as_u64();
    assert!(
        tasks > Some(2),
        "quoted line ends do not keep a file from being split: {ended:#}"
    );
    check(&desk.rows("parquet"), &expected, "parquet");

    desk.pass(&read("parquet", "parquet"), &desk.out("json", "json"));
    let mut json_input = read("json", "json");
    json_input["schema"] = json!(SCHEMA);
    let ended = desk.pass(&json_input, &desk.out("csv", "csv"));
    assert_eq!(ended["outputs"][0]["rows"], ROWS, "{ended:#}");
    // A folder that a job has written is read as its manifest says.
    let mut csv_again = json!({ "format": "csv", "uri": desk.path("csv") });
    csv_again["schema"] = json!(SCHEMA);
    desk.pass(&csv_again, &desk.out("arrow", "arrow"));
    check(&desk.rows("arrow"), &expected, "arrow");
    let arrow = json!({ "format": "arrow", "uri": desk.path("arrow") });
    desk.pass(&arrow, &desk.out("parquet-again", "parquet"));
    check(&desk.rows("parquet-again"), &expected, "from arrow");

    // Once more through the guest's memory, from files that are compressed.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv.as_bytes()).expect("it writes");
    desk.write("table.csv.gz", &gzip.finish().expect("it ends"));
    let zstd = zstd::encode_all(csv.as_bytes(), 1).expect("it is encoded");
    desk.write("table.csv.zst", &zstd);
    for suffix in ["gz", "zst"] {
        let mut input = csv_input.clone();
        input["uri"] = json!(desk.path(&format!("table.csv.{suffix}")));
        let job = desk.job(&input, &desk.out(suffix, "parquet"), "mirror/copy");
        job::run(&desk.server, &job);
        check(&desk.rows(suffix), &expected, suffix);
    }
}

#[test]
fn columns_are_inferred_projected_and_checked() {
    let desk = Desk::new();
    let csv = desk.write("a.csv", b"id,name,score\n1,x,0.5\n2,y,1\n");
    desk.pass(
        &json!({ "format": "csv", "uri": csv }),
        &desk.out("inferred", "parquet"),
    );
    assert_eq!(desk.rows("inferred"), ["1|x|0.5", "2|y|1.0"]);
    let some = json!({ "format": "csv", "uri": csv, "schema": ["score float64", "id utf8"] });
    desk.pass(&some, &desk.out("some", "parquet"));
    assert_eq!(desk.rows("some"), ["0.5|1", "1.0|2"]);

    let inferred = desk.path("inferred").join("*.parquet");
    let columns = json!({ "format": "parquet", "uri": inferred, "columns": ["score", "id"] });
    desk.pass(&columns, &desk.out("columns", "parquet"));
    assert_eq!(desk.rows("columns"), ["0.5|1", "1.0|2"]);

    let lines = b"{\"id\": 1, \"tags\": [\"a\", \"b\"], \"at\": {\"x\": 1}}\n\n{\"id\": 2, \"tags\": null}\n";
    let lines = desk.write("a.json", lines);
    desk.pass(
        &json!({ "format": "json", "uri": lines }),
        &desk.out("nested", "parquet"),
    );
    assert_eq!(desk.rows("nested"), ["1|[a, b]|{x: 1}", "2||"]);

    desk.pass(&columns, &desk.out("whole", "arrow"));

    let missing = json!({ "format": "parquet", "uri": inferred, "columns": ["scores"] });
    let detail = desk.fails(&missing, &desk.out("no", "parquet"), "schema_mismatch");
    assert!(
        detail.contains("no column `scores`") && detail.contains("`score`"),
        "{detail}"
    );
    desk.write("b.csv", b"id,other\n1,2\n");
    let both = json!({ "format": "csv", "uri": desk.path("*.csv") });
    let detail = desk.fails(&both, &desk.out("no", "parquet"), "schema_mismatch");
    assert!(
        detail.contains("b.csv") && detail.contains("`name`"),
        "{detail}"
    );
    let broken = desk.write("c.parquet", b"PAR1 and nothing else PAR1");
    let broken = json!({ "format": "parquet", "uri": broken });
    let detail = desk.fails(&broken, &desk.out("no", "parquet"), "bad_record");
    assert!(detail.contains("c.parquet"), "{detail}");
    for (at, what) in [
        (0, "not readable"),
        (68, "not readable"),
        (80, "not readable"),
    ] {
        let file = folder::files(&desk.path("whole"))
            .into_iter()
            .find(|path| path.extension().is_some_and(|name| name == "arrow"));
        let mut bytes = fs::read(file.expect("it was written")).expect("it reads");
        let at = at.min(bytes.len() - 1);
        bytes[at..at + 4].fill(0xfe);
        let broken = desk.write("d.arrow", &bytes);
        let detail = desk.fails(
            &json!({ "format": "arrow", "uri": broken }),
            &desk.out("no", "parquet"),
            "bad_record",
        );
        assert!(
            detail.contains(what) && detail.contains("d.arrow"),
            "{at}: {detail}"
        );
    }
    let nested = json!({ "format": "json", "uri": lines });
    let detail = desk.fails(&nested, &desk.out("no", "csv"), "schema_mismatch");
    assert!(
        detail.contains("tags") && detail.contains("csv"),
        "{detail}"
    );
}

#[test]
fn parquet_is_filtered_and_row_groups_that_cannot_pass_are_not_read() {
    let desk = Desk::new();
    let (csv, expected) = table();
    let path = desk.write("table.csv", csv.as_bytes());
    let csv = json!({ "format": "csv", "uri": path, "schema": SCHEMA });
    desk.pass(&csv, &desk.out("parts", "parquet"));
    let read = |columns: &[&str], filter: &[&str]| json!({ "format": "parquet", "uri": desk.path("parts"), "columns": columns, "filter": filter });

    // The column that is asked about need not be among those that are read.
    let filter = [
        "id < 20000",
        "ok = true",
        "day >= 2026-02-10",
        "price > 50.5",
    ];
    desk.pass(
        &read(&["name", "id"], &filter),
        &desk.out("some", "parquet"),
    );
    let kept = expected.iter().filter_map(|row| {
        let [id, name, price, day, _, ok] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let passes = id.parse::<u32>().ok()? < 20_000
            && ok == "true"
            && day >= "2026-02-10"
            && price.parse::<f64>().ok()? > 50.5;
        passes.then(|| format!("{name}|{id}"))
    });
    let mut kept: Vec<String> = kept.collect();
    kept.sort();
    assert!(kept.len() > 1000);
    check(&desk.rows("some"), &kept, "filtered");

    // Rows that cannot pass are not even looked at: here they are unreadable.
    let last = folder::files(&desk.path("parts"))
        .pop()
        .expect("there are files");
    let mut bytes = fs::read(&last).expect("it reads");
    bytes[4..2000].fill(0xfe);
    fs::write(&last, bytes).expect("it writes");
    desk.fails(&read(&[], &[]), &desk.out("no", "parquet"), "bad_record");
    desk.pass(
        &read(&["id"], &["id < 20000"]),
        &desk.out("first", "parquet"),
    );
    assert_eq!(desk.rows("first").len(), 20_000);

    for (filter, what) in [
        ("ids < 1", "no column `ids`"),
        ("id < x", "`x` is not a value of type int64"),
    ] {
        let detail = desk.fails(
            &read(&[], &[filter]),
            &desk.out("no", "parquet"),
            "schema_mismatch",
        );
        assert!(detail.contains(what) && detail.contains(filter), "{detail}");
    }
}

#[test]
fn bad_records_fail_are_skipped_or_put_aside() {
    let desk = Desk::new();
    let mut csv = String::from("id,n\n");
    for id in 0..5000 {
        match id {
            1234 => csv += "1234,many\n",
            2345 => csv += "2345\n",
            3456 => csv += "3456,1,2\n",
            _ => writeln!(csv, "{id},{}", id * 2).expect("text grows"),
        }
    }
    let csv = desk.write("bad.csv", csv.as_bytes());
    let json_lines = desk.write(
        "bad.json",
        b"{\"id\": 1}\n{\"id\": \n{\"id\": 2}\nnot json\n{\"id\": \"x\"}\n",
    );
    let csv = |policy: Value| json!({ "format": "csv", "uri": csv, "schema": ["id int64", "n int64"], "bad_records": policy });
    let lines = |policy: Value| json!({ "format": "json", "uri": json_lines, "schema": ["id int64"], "bad_records": policy });

    let detail = desk.fails(
        &csv(json!("fail")),
        &desk.out("no", "parquet"),
        "bad_record",
    );
    for part in [
        "bad.csv`, byte 10680: `many` is not a valid int64 (column `n`);",
        "another type in `schema`",
        "bad_records",
    ] {
        assert!(detail.contains(part), "{detail}");
    }
    let ended = desk.pass(&csv(json!("skip")), &desk.out("kept", "parquet"));
    assert_eq!(desk.rows("kept").len(), 4997);
    assert_eq!(ended["stages"][0]["bad_records"], 3, "{ended:#}");
    let log = job::log(&desk.server, &job::id_of(&ended));
    assert!(
        log.contains("3 records of") && log.contains("bad.csv"),
        "{log}"
    );

    let aside = |name: &str| json!({ "dead_letter": desk.path(name) });
    let ended = desk.pass(&csv(aside("bad")), &desk.out("kept-too", "parquet"));
    let stage = &ended["stages"][0];
    // Dead letters are no rows that came out.
    assert_eq!(
        (
            &stage["bad_records"],
            &stage["rows_read"],
            &stage["rows_written"]
        ),
        (&json!(3), &json!(4997), &json!(4997)),
        "{ended:#}"
    );
    let manifest = fs::read(desk.path("kept-too").join("_weft.manifest")).expect("it is published");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["schema"], json!([["id", "int64"], ["n", "int64"]]));
    assert_eq!(desk.rows("kept-too").len(), 4997);
    let dead = rows(&desk.path("bad"));
    assert_eq!(dead.len(), 3, "{dead:?}");
    let expected = [
        ("`many` is not a valid int64 (column `n`)", "1234,many"),
        ("it has 1 value, and there are 2 columns", "2345"),
        ("it has 3 values, and there are 2 columns", "3456,1,2"),
    ];
    for (row, (reason, record)) in dead.iter().zip(expected) {
        assert!(
            row.contains("bad.csv") && row.contains(reason) && row.ends_with(record),
            "{row}"
        );
    }
    desk.pass(&lines(aside("bad-lines")), &desk.out("lines", "parquet"));
    assert_eq!(desk.rows("lines"), ["1", "2"]);
    let dead = rows(&desk.path("bad-lines"));
    assert_eq!(dead.len(), 3, "{dead:?}");
    assert!(
        dead[2].contains("`x` is not a valid int64 (column `id`)"),
        "{dead:?}"
    );
}

fn listing(folder: &Path) -> Vec<String> {
    let files = folder::files(folder).into_iter();
    let names = files.map(|path| {
        path.strip_prefix(folder)
            .expect("it lies there")
            .display()
            .to_string()
    });
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn folders_are_overwritten_and_added_to() {
    let desk = Desk::new();
    let input = |name: &str, text: &[u8]| json!({ "format": "csv", "uri": desk.write(name, text) });
    let (one, two) = (
        input("1.csv", b"id,day\n1,a\n2,b\n"),
        input("2.csv", b"id,day\n3,a\n4,c d/e\n"),
    );
    let out = |mode: &str| json!({ "format": "json", "uri": desk.path("out"), "mode": mode, "partition_by": ["day"] });
    desk.pass(&one, &out("error"));
    let first = [
        "_weft.manifest",
        "day=a/part-passed-00000.json",
        "day=b/part-passed-00000.json",
    ];
    assert_eq!(listing(&desk.path("out")), first);
    let detail = desk.fails(&two, &out("error"), "output_exists");
    assert!(
        detail.contains("overwrite") && detail.contains("append"),
        "{detail}"
    );

    desk.pass(&two, &out("append"));
    let mut both = first.map(str::to_owned).to_vec();
    both.push("day=a/part-passed-00000-g1.json".into());
    both.push("day=c d%2Fe/part-passed-00000-g1.json".into());
    both.sort();
    assert_eq!(listing(&desk.path("out")), both);
    assert_eq!(desk.rows("out"), ["1", "2", "3", "4"]);

    fs::write(desk.path("out/day=b/notes.txt"), "somebody else's").expect("it writes");
    desk.pass(&two, &out("overwrite"));
    crate::clock::eventually("what was replaced is gone", || {
        let left = listing(&desk.path("out"));
        let expected = [
            "_weft.manifest",
            "day=a/part-passed-00000-g2.json",
            "day=b/notes.txt",
            "day=c d%2Fe/part-passed-00000-g2.json",
        ];
        (left == expected).then_some(())
    });
    assert_eq!(desk.rows("out"), ["3", "4"]);

    fs::create_dir_all(desk.path("foreign")).expect("it is made");
    fs::write(desk.path("foreign/precious.txt"), "precious").expect("it writes");
    let mut foreign = out("overwrite");
    foreign["uri"] = json!(desk.path("foreign"));
    let detail = desk.fails(&one, &foreign, "output_exists");
    assert!(detail.contains("no manifest"), "{detail}");
    assert_eq!(listing(&desk.path("foreign")), ["precious.txt"]);
}

/// An Arrow file of Polars without batches: the length of its schema stands nowhere, and the mark of the end behind it.
const EMPTY_ARROW: &str = "\
     4152524f5731000004000000f2ffffff140000000400010000000a000b0008000a000400f8ffffff0c00000008000800\
     000004000100000004000000ecffffff3800000020000000180000000102000010001200040010001100080000000c00\
     00000000f4ffffff400000000100000008000900040008000100000061000000ffffffff0000000004000000ecffffff\
     280000002000000014000000040000000c0012001000040008000c00000000000000000000000000f8ffffff0c000000\
     08000800000004000100000004000000ecffffff38000000200000001800000001020000100012000400100011000800\
     00000c0000000000f4ffffff400000000100000008000900040008000100000061008a0000004152524f5731";

#[test]
fn arrow_files_without_batches_have_columns() {
    let desk = Desk::new();
    let digits = EMPTY_ARROW.as_bytes().chunks(2);
    let byte = |two: &[u8]| {
        let text = std::str::from_utf8(two).expect("digits are ASCII");
        u8::from_str_radix(text, 16).expect("two digits")
    };
    let bytes: Vec<u8> = digits.map(byte).collect();
    let input = json!({ "format": "arrow", "uri": desk.write("empty.arrow", &bytes) });
    let ended = desk.pass(&input, &desk.out("passed", "parquet"));
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let manifest = fs::read(desk.path("passed/_weft.manifest")).expect("it is published");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["schema"], json!([["a", "int64"]]));
    assert_eq!(manifest["rows"], 0);
}

/// More values than files that are open at a time.
#[test]
fn many_folders_from_one_task() {
    let desk = Desk::new();
    let mut csv = String::from("id,key\n");
    for id in 0..5000 {
        writeln!(csv, "{id},{}", id * 37 % 200).expect("text grows");
    }
    let input = json!({ "format": "csv", "uri": desk.write("many.csv", csv.as_bytes()) });
    let output = json!({ "format": "csv", "uri": desk.path("out"), "partition_by": ["key"] });
    desk.pass(&input, &output);
    assert_eq!(desk.rows("out").len(), 5000);
    let folders = folder::names(&desk.path("out"));
    assert_eq!(
        folders
            .iter()
            .filter(|name| name.starts_with("key="))
            .count(),
        200
    );
    assert!(!outputs::published(&desk.path("out")).is_empty());
}

/// The server dies while files are published that join others, or take their place.
#[test]
fn folders_are_written_to_once_whatever_dies() {
    let points = [
        "publish=kill-parent",
        "publish=kill-parent@2",
        "publish-manifest=kill-parent",
        "published=kill",
        "archived=kill",
    ];
    for mode in ["append", "overwrite"] {
        for point in points {
            let mut desk = Desk::new();
            let input =
                |name: &str, text: &[u8]| json!({ "format": "csv", "uri": desk.write(name, text) });
            let (one, two) = (
                input("1.csv", b"id,day\n1,a\n2,b\n"),
                input("2.csv", b"id,day\n3,a\n4,c\n"),
            );
            let out = json!({ "format": "json", "uri": desk.path("out"), "mode": mode, "partition_by": ["day"] });
            desk.pass(&one, &out);
            let job = desk.job(&two, &out, "mirror/pass");
            let setup = Setup::default().with_failpoints(point, &desk.path("once"));
            let server = Server::start(&desk.path("data-of-none"), &Setup::default());
            assert!(std::mem::replace(&mut desk.server, server).stop().success());
            let server = Server::start(&desk.place.data(), &setup);
            let id = job::submit(&server, &job);
            server.wait_until_killed();
            let server = Server::start(&desk.place.data(), &setup);
            let ended = job::wait(&server, &id);
            assert_eq!(ended["status"], "succeeded", "{mode}, {point}: {ended:#}");
            crate::clock::until_empty("nothing is left behind", || {
                let mut left = folder::leftovers(&desk.place.data());
                left.extend(folder::staged(&desk.path("")));
                left
            });
            let (rows, files): (&[&str], _) = match mode {
                "append" => (&["1", "2", "3", "4"], 5),
                _ => (&["3", "4"], 3),
            };
            assert_eq!(desk.rows("out"), rows, "{mode}, {point}");
            assert_eq!(listing(&desk.path("out")).len(), files, "{mode}, {point}");
        }
    }
}

/// Jobs that write to one folder at the same time all succeed: the manifest lists the files of all that append, and those of
/// one that overwrites.
#[test]
fn writers_at_the_same_time() {
    let desk = Desk::new();
    let run = |out: &str, mode: &str| {
        let submit = |number: u32| {
            let text = format!("id\n{number}\n");
            let input = json!({ "format": "csv", "uri": desk.write(&format!("{number}.csv"), text.as_bytes()) });
            let out = json!({ "format": "csv", "uri": desk.path(out), "mode": mode });
            job::submit(&desk.server, &desk.job(&input, &out, "mirror/pass"))
        };
        for id in (0..6).map(submit).collect::<Vec<_>>() {
            let ended = job::wait(&desk.server, &id);
            assert_eq!(ended["status"], "succeeded", "{mode}: {ended:#}");
        }
    };
    run("added", "append");
    assert_eq!(desk.rows("added"), ["0", "1", "2", "3", "4", "5"]);
    run("replaced", "overwrite");
    assert_eq!(desk.rows("replaced").len(), 1);
    crate::clock::eventually("what was replaced is gone", || {
        (listing(&desk.path("replaced")).len() == 2).then_some(())
    });
}

/// What a folder's manifest says is only believed of what lies in the folder.
#[test]
fn manifests_that_reach_out_are_refused() {
    let desk = Desk::new();
    let precious = desk.write("precious.csv", b"id\n1\n");
    fs::create_dir_all(desk.path("out")).expect("it is made");
    for name in ["../precious.csv", precious.to_str().expect("a plain name")] {
        let manifest = json!({
            "job": "job-1", "output": "o", "format": "csv", "schema": [], "rows": 1, "bytes": 5,
            "files": [{ "name": name, "rows": 1, "bytes": 5, "xxh3": "0" }],
        });
        fs::write(desk.path("out/_weft.manifest"), manifest.to_string()).expect("it writes");
        let input = json!({ "format": "csv", "uri": desk.write("in.csv", b"id\n7\n") });
        let out = json!({ "format": "csv", "uri": desk.path("out"), "mode": "overwrite" });
        let job = desk.job(&input, &out, "mirror/pass");
        let ended = job::wait(&desk.server, &job::submit(&desk.server, &job));
        assert_eq!(ended["status"], "failed", "{ended:#}");
        let read = json!({ "format": "csv", "uri": desk.path("out") });
        let detail = desk.fails(&read, &desk.out("no", "csv"), "no_input");
        assert!(detail.contains("outside of its folder"), "{detail}");
    }
    assert!(precious.exists());
}
