//! SQL: queries from the command line and stages of job files, over files, inputs and other stages. Rows do not
//! depend on the number of tasks.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::fixture::Place;
use crate::job;
use crate::outputs::rows;
use crate::random::Random;
use crate::server::{Server, Setup, weft};

/// Files of the table `orders`, and rows of each.
const ORDERS: (i64, i64) = (4, 500);
const USERS: i64 = 40;

/// A server, and a folder that queries are run in.
pub(crate) struct Desk {
    // Dropped first: its folders are in use until then.
    pub(crate) server: Server,
    pub(crate) place: Place,
}

impl Desk {
    pub(crate) fn new() -> Desk {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        fs::create_dir(place.path("here")).expect("it is made");
        Desk { server, place }
    }

    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.place.path("here").join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.here(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
        fs::write(path, bytes).expect("it writes");
    }

    pub(crate) fn write_parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).expect("one length");
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("it writes");
        self.write(name, writer.into_inner().expect("it ends"));
    }

    /// Trips in two files of CSV.
    pub(crate) fn write_trips(&self) {
        self.write(
            "data/trips-1.csv",
            "city,fare\nBerlin,10\nParis,7\nBerlin,20\n",
        );
        self.write(
            "data/trips-2.csv",
            "city,fare\nRome,5\nParis,8\nBerlin,30\n",
        );
    }

    /// A command of the CLI, in the folder `here`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.server.cli(arguments);
        command
            .current_dir(self.place.path("here"))
            .env("TMPDIR", "/nowhere");
        command
    }

    /// Runs `weft sql`, which needs no temporary folder.
    pub(crate) fn sql(&self, arguments: &[&str]) -> Output {
        let ran = self.command(&[&["sql"][..], arguments].concat()).output();
        ran.expect("it starts")
    }

    /// Standard output of a query that succeeds, and the last line of standard error.
    #[track_caller]
    pub(crate) fn shows(&self, arguments: &[&str]) -> (String, String) {
        let ran = self.sql(arguments);
        let (shown, said) = (text(&ran.stdout), text(&ran.stderr));
        let log = self.server.log();
        assert!(ran.status.success(), "{arguments:?}: {said}\n{log}");
        let last = said.lines().next_back().unwrap_or_default();
        (shown, last.to_owned())
    }

    /// The rows of a query that succeeds.
    #[track_caller]
    pub(crate) fn rows(&self, sql: &str, partitions: u32) -> Vec<Value> {
        let partitions = partitions.to_string();
        let line = [
            "--json",
            "--rows",
            "100000",
            "--partitions",
            &partitions,
            sql,
        ];
        let (shown, _) = self.shows(&line);
        let document: Value = serde_json::from_str(&shown).expect("one document");
        document["rows"].as_array().expect("a list").clone()
    }

    /// Rows and bytes that the receipt of the newest job says were read from files.
    #[track_caller]
    fn read(&self) -> (u64, u64) {
        let shown = self.command(&["receipt", "last", "--json"]).output();
        let shown = text(&shown.expect("it starts").stdout);
        let receipt: Value = serde_json::from_str(&shown).expect("one document");
        let billed = |meter: &str| receipt["billed"][meter].as_u64().expect("a number");
        (billed("rows_in"), billed("bytes_read"))
    }

    /// Panics unless the query fails, prints no rows, and says all of `words`.
    #[track_caller]
    pub(crate) fn refuses(&self, sql: &str, words: &[&str]) {
        let ran = self.sql(&[sql]);
        let said = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{sql}: {said}");
        assert_eq!(text(&ran.stdout), "", "{sql}");
        for word in words {
            assert!(said.contains(word), "{sql}: `{word}` is not in {said}");
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn numbers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// One row of `orders`.
struct Order {
    id: i64,
    user_id: i64,
    amount: i64,
}

/// Writes `orders-*.parquet` and `users.parquet`, and gives the orders. A few have users that are not there.
fn write_shop(desk: &Desk) -> Vec<Order> {
    let mut random = Random::seeded("sql", 7);
    let mut number = |below: i64| random.below(below as u64) as i64;
    let (n_files, n_rows) = ORDERS;
    let orders: Vec<Order> = (0..n_files * n_rows)
        .map(|id| Order {
            id,
            user_id: number(USERS + 3),
            amount: number(1_000),
        })
        .collect();
    for (position, rows) in orders.chunks(n_rows as usize).enumerate() {
        let of = |value: fn(&Order) -> i64| numbers(rows.iter().map(value));
        let columns = vec![
            ("id", of(|order| order.id)),
            ("user_id", of(|order| order.user_id)),
            ("amount", of(|order| order.amount)),
        ];
        desk.write_parquet(&format!("orders-{position}.parquet"), columns);
    }
    let countries = StringArray::from_iter_values((0..USERS).map(country));
    let users = vec![
        ("id", numbers(0..USERS)),
        ("country", Arc::new(countries) as ArrayRef),
    ];
    desk.write_parquet("users.parquet", users);
    orders
}

fn country(user_id: i64) -> &'static str {
    ["de", "fr", "it", "no", "pt", "se", "uk"][user_id as usize % 7]
}

const BY_COUNTRY: &str = "SELECT u.country, count(*) AS orders, sum(o.amount) AS amount \
    FROM 'orders-*.parquet' o JOIN 'users.parquet' u ON o.user_id = u.id GROUP BY u.country ORDER BY u.country";

/// The rows of [`BY_COUNTRY`].
fn by_country(orders: &[Order]) -> Vec<Value> {
    let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for order in orders.iter().filter(|order| order.user_id < USERS) {
        let sum = sums.entry(country(order.user_id)).or_default();
        *sum = (sum.0 + 1, sum.1 + order.amount);
    }
    let row = |(country, (n, amount)): (&str, (i64, i64))| json!([country, n, amount]);
    sums.into_iter().map(row).collect()
}

#[test]
fn a_query_reads_files_by_their_paths() {
    let desk = Desk::new();
    desk.write_trips();
    let sql = "SELECT city, count(*) AS n, sum(fare) AS fares FROM 'data/trips-*.csv' \
               GROUP BY city ORDER BY fares DESC, city LIMIT 2";
    let table = "city    n  fares\nBerlin  3  60\nParis   2  15\n";
    let expected = (table.to_owned(), "2 rows".to_owned());
    assert_eq!(desk.shows(&[sql]), expected);
    assert_eq!(desk.shows(&[sql, "--partitions", "3"]), expected);

    // From a file, and from standard input.
    desk.write("report.sql", format!("-- the best cities\n{sql};\n"));
    assert_eq!(desk.shows(&["-f", "report.sql"]), expected);
    let mut piped = desk.command(&["sql", "-"]);
    piped.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(sql.as_bytes()).expect("it is read");
    drop(stdin);
    let ran = child.wait_with_output().expect("it ends");
    assert_eq!(text(&ran.stdout), table, "{}", text(&ran.stderr));

    let one = "SELECT city FROM 'data/trips-1.csv' ORDER BY city";
    let (shown, last) = desk.shows(&[one, "--rows", "1"]);
    assert_eq!((&*shown, &*last), ("city\nBerlin\n", "1 row of 3"));
    let absolute = desk.here("data/trips-2.csv");
    let absolute = format!("SELECT max(fare) AS most FROM '{}'", absolute.display());
    assert_eq!(desk.rows(&absolute, 1), [json!([30])]);
    assert_eq!(
        desk.rows("SELECT 1 AS one, 'x' AS word", 1),
        [json!([1, "x"])]
    );
}

#[test]
fn a_query_is_checked_and_keeps_its_rows() {
    let desk = Desk::new();
    desk.write_trips();
    let sql = "SELECT city, sum(fare) AS fares FROM 'data/trips-*.csv' GROUP BY city ORDER BY city";
    let (checked, _) = desk.shows(&["--check", "--partitions", "3", sql]);
    for word in ["nothing is wrong", "city utf8, fares int64", ": 3 tasks"] {
        assert!(checked.contains(word), "`{word}` is not in {checked}");
    }
    for (format, out) in [("parquet", "out/fares"), ("csv", "out/text")] {
        let (shown, _) = desk.shows(&[sql, "--output", out, "--format", format]);
        assert_eq!(shown, "city    fares\nBerlin  60\nParis   15\nRome    5\n");
    }
    assert_eq!(
        rows(&desk.here("out/text")),
        ["Berlin,60", "Paris,15", "Rome,5"]
    );
    let again = "SELECT count(*) AS n, sum(fares) AS fares FROM 'out/fares/*.parquet'";
    assert_eq!(desk.rows(again, 1), [json!([3, 80])]);

    let taken = desk.sql(&[sql, "--output", "out/fares"]);
    let said = text(&taken.stderr);
    assert!(
        !taken.status.success() && said.contains("[output_exists]"),
        "{said}"
    );
    assert_eq!(
        desk.rows(again, 1),
        [json!([3, 80])],
        "the folder is as it was"
    );
}

#[test]
fn a_file_may_hold_several_statements() {
    let desk = Desk::new();
    let script = "-- words\nCREATE TABLE words (n INT, word TEXT);\n\
                  INSERT INTO words VALUES (1, 'a;b'), (2, NULL), (3, '');\n\
                  COPY (SELECT n FROM words) TO 'copied.csv';\n\
                  SELECT n, word FROM words ORDER BY n;\n";
    desk.write("script.sql", script);
    let ran = desk.sql(&["-f", "script.sql"]);
    let said = text(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert_eq!(text(&ran.stdout), "n  word\n1  a;b\n2  NULL\n3\n");
    let copied = desk.here("copied.csv");
    assert_eq!(rows(&copied), ["1", "2", "3"]);
    let again = "SELECT count(*) AS n FROM 'copied.csv'";
    assert_eq!(desk.rows(again, 1), [json!([3])]);
    let line = format!("in the folder {}", copied.display());
    assert!(
        said.contains("1 csv file") && said.contains(&line),
        "{said}"
    );

    desk.write(
        "wrong.sql",
        "SELECT 1 AS a;\nSELECT none AS b;\nSELECT 2 AS c",
    );
    let ran = desk.sql(&["-f", "wrong.sql"]);
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert_eq!(text(&ran.stdout), "a\n1\n");
    assert!(said.contains("statement 2 of 3, on line 2"), "{said}");
}

#[test]
fn files_are_joined() {
    let desk = Desk::new();
    let orders = write_shop(&desk);
    assert_eq!(desk.rows(BY_COUNTRY, 3), by_country(&orders));
    let unknown = "SELECT count(*) AS n FROM 'orders-*.parquet' o \
                   LEFT JOIN 'users.parquet' u ON o.user_id = u.id WHERE u.id IS NULL";
    let n = orders.iter().filter(|order| order.user_id >= USERS).count();
    assert!(n > 0);
    assert_eq!(desk.rows(unknown, 3), [json!([n])]);
}

#[test]
fn a_join_may_have_an_empty_side() {
    let desk = Desk::new();
    let orders = write_shop(&desk);
    let none = vec![("id", numbers([])), ("rank", numbers([]))];
    desk.write_parquet("none.parquet", none);
    let (orders_file, none) = ("'orders-*.parquet' o", "'none.parquet' n");
    let count = |from: &str| {
        let sql = format!("SELECT count(*) AS n, count(n.rank) AS ranks FROM {from}");
        desk.rows(&sql, 3)
    };
    let all = orders.len();
    for (join, n) in [
        ("JOIN", 0),
        ("LEFT JOIN", all),
        ("RIGHT JOIN", 0),
        ("FULL JOIN", all),
    ] {
        let from = format!("{orders_file} {join} {none} ON o.user_id = n.id");
        assert_eq!(count(&from), [json!([n, 0])], "{join}");
    }
    // The empty one first: what is built is empty, and the other side need not be read.
    for (join, n) in [("JOIN", 0), ("LEFT JOIN", 0), ("RIGHT JOIN", all)] {
        let from = format!("{none} {join} {orders_file} ON o.user_id = n.id");
        assert_eq!(count(&from), [json!([n, 0])], "{join}");
    }
    let row = format!("SELECT o.id, n.rank FROM {none} JOIN {orders_file} ON o.user_id = n.id");
    assert_eq!(
        desk.shows(&[&row]),
        ("id  rank\n".to_owned(), "0 rows".to_owned())
    );
}

#[test]
fn rows_do_not_depend_on_the_number_of_tasks() {
    let desk = Desk::new();
    let orders = write_shop(&desk);
    let queries = [
        BY_COUNTRY,
        "SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY id) AS n, \
         sum(amount) OVER (PARTITION BY user_id ORDER BY id) AS amount FROM 'orders-*.parquet' ORDER BY id",
        "SELECT user_id AS id FROM 'orders-*.parquet' WHERE amount < 50 \
         UNION SELECT id FROM 'users.parquet' ORDER BY id",
        "SELECT amount FROM 'orders-*.parquet' UNION ALL SELECT id FROM 'users.parquet' ORDER BY amount",
        "SELECT DISTINCT amount % 10 AS digit FROM 'orders-*.parquet' ORDER BY digit DESC",
        "SELECT u.country, o.id FROM 'users.parquet' u FULL JOIN 'orders-*.parquet' o ON o.user_id = u.id \
         ORDER BY u.country, o.id LIMIT 100 OFFSET 50",
        "SELECT id FROM 'orders-*.parquet' WHERE amount > (SELECT avg(amount) FROM 'orders-*.parquet') ORDER BY id",
        "WITH best AS (SELECT user_id, max(amount) AS amount FROM 'orders-*.parquet' GROUP BY user_id) \
         SELECT o.id FROM 'orders-*.parquet' o JOIN best USING (user_id, amount) ORDER BY o.id",
        "SELECT count(*) AS n FROM 'orders-*.parquet'",
    ];
    for sql in queries {
        let expected = desk.rows(sql, 1);
        assert!(!expected.is_empty(), "{sql}");
        for partitions in [3, 8] {
            assert_eq!(desk.rows(sql, partitions), expected, "{partitions}: {sql}");
        }
    }
    assert_eq!(desk.rows(BY_COUNTRY, 8), by_country(&orders));
    // Without an order, the rows are the same ones.
    let filtered = "SELECT id, amount FROM 'orders-*.parquet' WHERE amount % 2 = 1";
    let sorted = |partitions| {
        let mut rows = desk.rows(filtered, partitions);
        rows.sort_by_key(|row| row[0].as_i64());
        rows
    };
    let odd = orders.iter().filter(|order| order.amount % 2 == 1);
    let odd: Vec<Value> = odd.map(|order| json!([order.id, order.amount])).collect();
    for partitions in [1, 3, 8] {
        assert_eq!(sorted(partitions), odd, "{partitions}");
    }
}

#[test]
fn a_limit_without_an_order_takes_the_same_rows_again() {
    let desk = Desk::new();
    let orders = write_shop(&desk);
    for sql in [
        "SELECT id, amount FROM 'orders-*.parquet' LIMIT 7",
        "SELECT id, amount FROM 'orders-*.parquet' WHERE amount > 500 LIMIT 7 OFFSET 600",
    ] {
        for partitions in [1, 3] {
            let first = desk.rows(sql, partitions);
            assert_eq!(first.len(), 7, "{sql}");
            assert_eq!(desk.rows(sql, partitions), first, "{partitions}: {sql}");
            for row in first {
                let id = row[0].as_u64().expect("a number") as usize;
                assert_eq!(row[1], orders[id].amount);
            }
        }
    }
}

#[test]
fn filters_spare_row_groups() {
    let desk = Desk::new();
    let orders = write_shop(&desk);
    let (n_files, n_rows) = ORDERS;
    let sum =
        |of: &str| format!("SELECT count(*) AS n, sum(amount) AS a FROM 'orders-*.parquet' {of}");
    let expected = |wanted: &dyn Fn(&Order) -> bool| {
        let wanted: Vec<&Order> = orders.iter().filter(|order| wanted(order)).collect();
        let amount: i64 = wanted.iter().map(|order| order.amount).sum();
        let amount = (!wanted.is_empty()).then_some(amount);
        [json!([wanted.len(), amount])]
    };
    assert_eq!(desk.rows(&sum(""), 1), expected(&|_| true));
    let (all_rows, all_bytes) = desk.read();
    assert_eq!(all_rows, (n_files * n_rows) as u64);
    // Each file is one row group.
    for partitions in [1, 3] {
        let second = sum("WHERE id BETWEEN 600 AND 700");
        assert_eq!(
            desk.rows(&second, partitions),
            expected(&|order| (600..=700).contains(&order.id))
        );
        let (_, bytes) = desk.read();
        assert!(bytes > 0 && bytes < all_bytes, "{bytes} of {all_bytes}");
        let none = sum("WHERE id > 1000000 OR id < 0");
        assert_eq!(desk.rows(&none, partitions), expected(&|_| false));
        assert_eq!(desk.read().1, 0);
    }
    desk.rows(
        "SELECT max(amount) AS a FROM 'orders-*.parquet' WHERE id = 1700",
        1,
    );
    assert_eq!(desk.read().0, n_rows as u64);
}

#[test]
fn folders_are_columns() {
    let desk = Desk::new();
    desk.write(
        "trips.csv",
        "city,fare\nRome,5\nParis,8\n,3\nSão Paulo/2,30\nRome,6\n",
    );
    desk.write(
        "job.toml",
        r#"
name = "by-city"
[input.trips]
format = "csv"
uri = "trips.csv"
[output.trips]
from = "trips"
format = "parquet"
uri = "out/"
partition_by = ["city"]
"#,
    );
    let ran = desk.command(&["run", "job.toml"]).output();
    let ran = ran.expect("it starts");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let by_city =
        "SELECT city, sum(fare) AS fares FROM 'out/city=*/*.parquet' GROUP BY city ORDER BY city";
    for partitions in [1, 3] {
        let expected = [
            json!(["Paris", 8]),
            json!(["Rome", 11]),
            json!(["São Paulo/2", 30]),
            json!([null, 3]),
        ];
        assert_eq!(desk.rows(by_city, partitions), expected);
    }
    let rome = "SELECT * FROM 'out/city=*/*.parquet' WHERE city = 'Rome' ORDER BY fare";
    assert_eq!(desk.rows(rome, 1), [json!([5, "Rome"]), json!([6, "Rome"])]);
    assert_eq!(desk.read().0, 2, "other files are not read");

    desk.write("log/year=2025/month=12/a.csv", "n\n1\n");
    desk.write("log/year=2026/month=01/a.csv", "n\n2\n3\n");
    let months = "SELECT year * 100 + month AS m, count(*) AS n FROM 'log/year=*/month=*/*.csv' \
                  GROUP BY year, month ORDER BY m";
    assert_eq!(
        desk.rows(months, 2),
        [json!([202_512, 1]), json!([202_601, 2])]
    );
    desk.write("log/n=1/a.csv", "n\n1\n");
    desk.refuses(
        "SELECT * FROM 'log/n=*/*.csv'",
        &["[schema_mismatch]", "`n`"],
    );
}

#[test]
fn a_job_has_sql_between_inputs_and_functions() {
    let desk = Desk::new();
    job::deploy(&desk.server, "hello");
    desk.write(
        "people.csv",
        "name,city,age\nAda,london,36\nBob,paris,9\nCyd,rome,20\nDan,oslo,70\n",
    );
    let cities = "SELECT * FROM (VALUES ('london', 'UK'), ('rome', 'IT'), ('paris', 'FR')) AS c (city, country)";
    desk.shows(&[cities, "--output", "cities"]);
    desk.write(
        "job.toml",
        r#"
name = "greetings"
[input.people]
format = "csv"
uri = "people.csv"
[[stage]]
name = "chosen"
from = ["people"]
sql = """
SELECT p.name, c.country
FROM people p JOIN 'cities/*.parquet' c ON p.city = c.city
WHERE p.age >= 18 ORDER BY p.name
"""
[[stage]]
name = "greeted"
from = "chosen"
map = "hello/greet"
[[stage]]
name = "counted"
from = ["greeted", "people"]
partitions = 3
sql = "SELECT count(g.greeting) AS greeted, count(*) AS people FROM people LEFT JOIN greeted g USING (name)"
[output.chosen]
from = "chosen"
format = "csv"
uri = "out/chosen/"
[output.greeted]
from = "greeted"
format = "json"
uri = "out/greeted/"
[output.counted]
from = "counted"
format = "parquet"
uri = "out/counted/"
"#,
    );
    let ran = desk
        .command(&["run", "job.toml"])
        .output()
        .expect("it starts");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert_eq!(rows(&desk.here("out/chosen")), ["Ada,UK", "Cyd,IT"]);
    let greeted = ["Ada|UK|hello, Ada", "Cyd|IT|hello, Cyd"];
    assert_eq!(rows(&desk.here("out/greeted")), greeted);
    assert_eq!(rows(&desk.here("out/counted")), ["2|4"]);
}

#[test]
fn a_union_has_the_rows_of_all() {
    let desk = Desk::new();
    job::deploy(&desk.server, "hello");
    desk.write("old.csv", "name,age\nAda,36\nBob,9\n");
    desk.write("new.json", "{\"age\": 20.5, \"name\": \"Cyd\"}\n");
    desk.write("other.csv", "name\nDan\n");
    let job = |union: &str| {
        format!(
            r#"
name = "people"
[input.old]
format = "csv"
uri = "old.csv"
[input.new]
format = "json"
uri = "new.json"
[input.other]
format = "csv"
uri = "other.csv"
[[stage]]
name = "all"
union = {union}
partitions = 2
[[stage]]
name = "grown"
from = ["all"]
sql = "SELECT name, age FROM \"all\" WHERE age > 10"
[[stage]]
name = "greeted"
from = "all"
map = "hello/greet"
[output.all]
from = "all"
format = "csv"
uri = "out/all/"
[output.grown]
from = "grown"
format = "csv"
uri = "out/grown/"
[output.greeted]
from = "greeted"
format = "csv"
uri = "out/greeted/"
"#
        )
    };
    let run = |union: &str| {
        desk.write("job.toml", job(union));
        let ran = desk.command(&["run", "job.toml"]).output();
        ran.expect("it starts")
    };
    let ran = run(r#"["old", "new"]"#);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert_eq!(
        rows(&desk.here("out/all")),
        ["Ada,36.0", "Bob,9.0", "Cyd,20.5"]
    );
    assert_eq!(rows(&desk.here("out/grown")), ["Ada,36.0", "Cyd,20.5"]);
    assert_eq!(rows(&desk.here("out/greeted")).len(), 3);

    fs::remove_dir_all(desk.here("out")).expect("it is there");
    let ran = run(r#"["old", "other"]"#);
    let said = text(&ran.stderr);
    assert!(!ran.status.success());
    for word in ["`all`", "`age`", "`other` has none", "[schema_mismatch]"] {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

#[test]
fn a_sort_above_its_memory_spills_and_the_receipt_says_so() {
    let desk = Desk::new();
    let sql = "SELECT CAST(value * 7919 % 600011 AS TEXT) || repeat('x', 60) AS word \
               FROM generate_series(1, 600000) ORDER BY word";
    let of = |memory: &str, out: &str| {
        let job = json!({
            "name": "words",
            "stage": [{ "name": "words", "sql": sql, "partitions": 1 }],
            "limits": { "memory": memory },
            "output": { "words": { "from": "words", "format": "csv", "uri": desk.here(out) } },
        });
        let ended = job::run(&desk.server, &job);
        let spilled = ended["stages"][0]["spilled_bytes"].as_u64();
        (rows(&desk.here(out)), spilled.expect("it is counted"))
    };
    let (in_memory, none) = of("1GiB", "large");
    let (merged, spilled) = of("64MiB", "small");
    assert_eq!(in_memory.len(), 600_000);
    assert!(merged == in_memory, "the same rows in the same order");
    assert!(none == 0 && spilled > 16 << 20, "{none}, {spilled}");
}

#[test]
fn queries_that_cannot_be_run_say_why() {
    let desk = Desk::new();
    desk.write_trips();
    desk.write("data/zeros.csv", "n\n4\n0\n2\n");
    desk.refuses("SELECT * FROM nowhere", &["nowhere", "[invalid_job]"]);
    desk.refuses(
        "SELECT * FROM 'data/none-*.csv'",
        &["none-*.csv", "[no_input]"],
    );
    desk.refuses("SELECT fair FROM 'data/trips-1.csv'", &["fair"]);
    desk.refuses(
        "SELECT nosuch(fare) AS f FROM 'data/trips-1.csv'",
        &["nosuch"],
    );
    desk.refuses("SELECT random() AS r", &["random"]);
    desk.refuses("SELEC 1 AS a", &["[invalid_job]"]);
    for evaluated in [
        "SELECT 8 / n AS x FROM 'data/zeros.csv'",
        "SELECT CAST(city AS INT) AS x FROM 'data/trips-1.csv'",
    ] {
        desk.refuses(evaluated, &["[query_error]"]);
    }
    for other in [
        "SELECT 1 AS a; SELECT 2 AS b",
        "INSERT INTO t VALUES (1)",
        "SET datafusion.execution.target_partitions = 1",
    ] {
        desk.refuses(other, &["[invalid_job]"]);
    }
    // The server goes on serving.
    let safe = "SELECT n, 8 / nullif(n, 0) AS x FROM 'data/zeros.csv' ORDER BY n";
    let expected = [json!([0, null]), json!([2, 4]), json!([4, 2])];
    assert_eq!(desk.rows(safe, 1), expected);
}

#[test]
fn the_nodes_of_a_cluster_share_a_query() {
    let cluster = Cluster::start(1, 2);
    let here = cluster.root.path().join("here");
    fs::create_dir(&here).expect("it is made");
    for file in 0..4 {
        let lines = (file * 100..(file + 1) * 100).map(|n| format!("{n}\n"));
        let csv = format!("n\n{}", lines.collect::<String>());
        fs::write(here.join(format!("n-{file}.csv")), csv).expect("it writes");
    }
    let sql = "SELECT a.n % 7 AS k, count(*) AS c, sum(b.n) AS total FROM 'n-*.csv' a \
               JOIN 'n-*.csv' b ON a.n = b.n + 1 GROUP BY a.n % 7 ORDER BY k";
    let endpoint = format!("http://{}", cluster.controllers[0]);
    let mut command = weft();
    command
        .args(["--endpoint", &endpoint, "--token", &cluster.token])
        .args(["sql", "--json", "--partitions", "4", sql])
        .current_dir(&here);
    let ran = command.output().expect("it starts");
    let said = text(&ran.stderr);
    assert!(ran.status.success(), "{said}\n{}", cluster.logs());
    let document: Value = serde_json::from_slice(&ran.stdout).expect("one document");
    let expected = (0..7).map(|k| {
        let of = (1..400).filter(|n| n % 7 == k);
        let (count, total) = of.fold((0, 0), |(count, total), n| (count + 1, total + n - 1));
        json!([k, count, total])
    });
    assert_eq!(document["rows"], expected.collect::<Value>());
}
