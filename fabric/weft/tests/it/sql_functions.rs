//! Functions of components in statements, with guests in Rust and in Python.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::fixture::Place;
use crate::http::Request;
use crate::job;
use crate::server::{Server, Setup};

/// A server with guests, and a folder with two tables that queries are run in.
struct Desk {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
}

/// Places of orders: at home, 27 km away, in another country, 18 km away, and nowhere.
const ORDERS: &str = "user_id,lat,lon,amount\n1,52.52,13.405,10\n1,52.4,13.06,20\n1,48.8566,2.3522,30\n\
                      2,48.8,2.13,40\n2,,,50\n";
const USERS: &str = "user_id,lat,lon,country\n1,52.52,13.405,de\n2,48.8566,2.3522,fr\n";

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        for guest in ["geo", "hello", "hello-py"] {
            job::deploy(&server, guest);
        }
        fs::create_dir(place.path("here")).expect("it is made");
        fs::write(place.path("here/orders.csv"), ORDERS).expect("it writes");
        fs::write(place.path("here/users.csv"), USERS).expect("it writes");
        Desk { server, place }
    }

    fn sql(&self, arguments: &[&str]) -> Output {
        let mut command = self.server.cli(&[&["sql"][..], arguments].concat());
        command.current_dir(self.place.path("here"));
        command.output().expect("it starts")
    }

    /// The rows of a query, which are the same whatever the number of its tasks.
    #[track_caller]
    fn rows(&self, sql: &str) -> Value {
        let of = |partitions: &str| {
            let ran = self.sql(&["--json", "--partitions", partitions, sql]);
            let said = String::from_utf8_lossy(&ran.stderr);
            let log = self.server.log();
            assert!(ran.status.success(), "{sql}: {said}\n{log}");
            let document: Value = serde_json::from_slice(&ran.stdout).expect("one document");
            document["rows"].clone()
        };
        let rows = of("1");
        assert_eq!(of("3"), rows, "{sql}");
        rows
    }

    /// Panics unless the query fails, and says all of `words`.
    #[track_caller]
    fn refuses(&self, sql: &str, words: &[&str]) {
        let ran = self.sql(&[sql]);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success(), "{sql}: {said}");
        for word in words {
            assert!(said.contains(word), "{sql}: `{word}` is not in {said}");
        }
    }
}

#[test]
fn a_function_stands_wherever_an_expression_does() {
    let desk = Desk::new();
    // In WHERE, after a join.
    let sql = "SELECT u.country, sum(o.amount) AS amount FROM 'orders.csv' o JOIN 'users.csv' u USING (user_id) \
               WHERE geo.km(o.lat, o.lon, u.lat, u.lon) < 50 GROUP BY 1 ORDER BY 1";
    assert_eq!(desk.rows(sql), json!([["de", 30], ["fr", 40]]));
    // In a join's filter, with or without an equality.
    let sql = "SELECT u.country, sum(o.amount) AS amount FROM 'orders.csv' o JOIN 'users.csv' u \
               ON geo.km(o.lat, o.lon, u.lat, u.lon) < 50 GROUP BY 1 ORDER BY 1";
    assert_eq!(desk.rows(sql), json!([["de", 30], ["fr", 70]]));
    let sql = "SELECT u.country, count(o.amount) AS n FROM 'users.csv' u LEFT JOIN 'orders.csv' o \
               ON o.user_id = u.user_id AND geo.km(o.lat, o.lon, u.lat, u.lon) > 100 GROUP BY 1 ORDER BY 1";
    assert_eq!(desk.rows(sql), json!([["de", 1], ["fr", 0]]));
    // In GROUP BY, in an aggregate's argument, and in a select list; integers become floats.
    let sql = "SELECT geo.hemisphere(lat) AS half, count(*) AS n, \
               CAST(round(max(geo.km(lat, lon, 52.52, 13.405))) AS BIGINT) AS km FROM 'orders.csv' GROUP BY 1 ORDER BY 1";
    assert_eq!(
        desk.rows(sql),
        json!([["north", 4, 895], ["unknown", 1, null]])
    );
    let sql = "SELECT amount, CAST(geo.km(lat, lon, 0, 0) IS NULL AS INT) AS nowhere FROM 'orders.csv' \
               WHERE amount > 30 ORDER BY 1";
    assert_eq!(desk.rows(sql), json!([[40, 0], [50, 1]]));
    // A CASE in a select list guards it: 100 degrees are no latitude.
    let sql = "SELECT amount, CASE WHEN amount < 20 THEN CAST(geo.km(amount * 5, 0, amount * 5, 0) AS INT) END AS km \
               FROM 'orders.csv' ORDER BY 1 LIMIT 2";
    assert_eq!(desk.rows(sql), json!([[10, 0], [20, null]]));
}

#[test]
fn a_python_function_is_called_and_its_component_has_a_dash() {
    let desk = Desk::new();
    let sql = "SELECT hello_py.initials('Ada King Lovelace Byron') AS a, \"hello-py\".initials('Ada King', 1) AS b, \
               hello_py.initials(NULL) AS c";
    assert_eq!(desk.rows(sql), json!([["AKL", "A", null]]));
    // Beside one in Rust.
    let sql = "SELECT hello_py.initials(country) AS i, max(geo.hemisphere(lat)) AS half FROM 'users.csv' \
               WHERE hello_py.initials(country, 1) <> 'x' GROUP BY hello_py.initials(country) ORDER BY i";
    assert_eq!(desk.rows(sql), json!([["d", "north"], ["f", "north"]]));
    let said = desk.sql(&["--check", sql]);
    let said = String::from_utf8_lossy(&said.stdout);
    for label in ["geo@0.1.0/hemisphere", "hello-py@0.1.0/initials"] {
        assert!(said.contains(label), "`{label}` is not in {said}");
    }
}

#[test]
fn what_is_wrong_with_a_call_is_said() {
    let desk = Desk::new();
    let far = "SELECT geo.km(lat + 80, lon, 0, 0) AS km FROM 'orders.csv'";
    let words = ["[guest_error]", "`geo@0.1.0/km`", "the latitude `132.52`"];
    desk.refuses(far, &words);
    let words = ["[guest_error]", "`0` letters are none"];
    desk.refuses("SELECT hello_py.initials('Ada', 0) AS i", &words);
    let words = ["takes 4 arguments", "3 are given"];
    desk.refuses("SELECT geo.km(1, 2, 3) AS km", &words);
    let words = ["argument 1 of `geo.km` is utf8", "float64", "CAST"];
    desk.refuses("SELECT geo.km('52', 2, 3, 4) AS km", &words);
    let words = ["[unknown_function]", "did you mean `km`?"];
    desk.refuses("SELECT geo.kn(1, 2, 3, 4) AS km", &words);
    let words = ["[unknown_function]", "did you mean `geo`?"];
    desk.refuses("SELECT gee.km(1, 2, 3, 4) AS km", &words);
    let words = ["`hello/greet` is a map function, where a scalar is needed"];
    desk.refuses("SELECT hello.greet('Ada') AS g", &words);
    // The other way round.
    let map = json!({
        "name": "wrong",
        "input": { "users": { "format": "csv", "uri": desk.place.path("here/users.csv") } },
        "stage": [{ "name": "mapped", "from": "users", "map": "geo/km" }],
        "output": { "mapped": { "from": "mapped", "format": "csv", "uri": desk.place.out() } },
    });
    let refused = desk.server.ask(&Request::json("/v1/jobs", &map));
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    let part = "`geo/km` is a scalar function, where a map is needed";
    assert!(refused.status >= 400 && text.contains(part), "{text}");
}

#[test]
fn what_a_function_uses_is_on_the_receipt() {
    let desk = Desk::new();
    let sql = "SELECT amount, geo.km(lat, lon, 52.52, 13.405) AS km FROM orders";
    let job = json!({
        "name": "metered",
        "input": { "orders": { "format": "csv", "uri": desk.place.path("here/orders.csv") } },
        "stage": [{ "name": "far", "from": ["orders"], "sql": sql }],
        "output": { "far": { "from": "far", "format": "csv", "uri": desk.place.out() } },
    });
    let ended = job::run(&desk.server, &job);
    let id = job::id_of(&ended);
    let receipt = desk
        .server
        .ask(&Request::get(format!("/v1/jobs/{id}/receipt")));
    let receipt: Value = receipt.ok();
    let lines = receipt["lines"].as_array().expect("a receipt has lines");
    let line = lines.iter().find(|line| line["function"] == "geo@0.1.0/km");
    let line = line.unwrap_or_else(|| panic!("{receipt:#}"));
    assert_eq!(line["stage"], "far", "{receipt:#}");
    assert_eq!(line["billed"]["rows_in"], 5, "{receipt:#}");
    assert_eq!(line["billed"]["rows_out"], 5, "{receipt:#}");
}
