//! Expressions that functions have the host evaluate, by the functions of SQL.

use crate::http::{Request, Response};
use crate::invoke::Desk;

fn eval(desk: &Desk, texts: &str) -> Response {
    let body = texts.as_bytes().to_vec();
    let invoke = Request::post("/v1/invoke/mirror/eval".to_owned(), "text/plain", body);
    desk.server.ask(&invoke)
}

#[test]
fn a_function_has_columns_computed_by_the_host() {
    let desk = Desk::new();
    let texts = "n\nn * 1.5 AS half_more\nupper(word) AS loud\nCASE WHEN n > 1 THEN 'many' ELSE word END AS c\n\
                 regexp_replace(word, '[0-9]+', '#') AS r\nCAST(n AS VARCHAR) || '!' AS t";
    let answer = eval(&desk, texts);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected = "n int64: 0, 1, 2\nhalf_more float64: 0, 1.5, 3\nloud utf8: WORD 0, WORD 1, WORD 2\n\
                    c utf8: word 0, word 1, many\nr utf8: word #, word #, word #\nt utf8: 0!, 1!, 2!\n3 rows\n";
    assert_eq!(answer.text(), expected);
    let number = |name: &str| -> u64 {
        let text = answer.header(name).expect("a meter");
        text.parse().expect("a whole number")
    };
    // What the host computes is no time of the guest.
    assert!(number("x-weft-cpu-ns") > number("x-weft-guest-cpu-ns"));
}

#[test]
fn what_the_host_does_not_evaluate_is_an_error_of_the_function() {
    let desk = Desk::new();
    for (text, words) in [
        ("sum(n)", "`sum` is an aggregate"),
        ("random() AS r", "`random` has another value each time"),
        ("(SELECT 1)", "subquery"),
        ("mirror.area(n)", "is a function of a component"),
        ("n / 0", "zero"),
        ("m", "m"),
        ("[n, n] AS list", "lists and structs"),
    ] {
        let problem = eval(&desk, text).json();
        assert_eq!(problem["code"], "guest_error", "{text}: {problem:#}");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(words), "{text}: {detail}");
    }
    // Four TiB, of which no byte is there.
    let problem = eval(&desk, "repeat(repeat(word, 1000000), 1000000) AS r").json();
    assert_eq!(problem["code"], "limit_exceeded", "{problem:#}");
    assert_eq!(problem["limit"], "memory", "{problem:#}");
}
