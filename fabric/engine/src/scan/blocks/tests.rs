use super::*;

const QUOTED: Dialect = Dialect::Csv {
    delimiter: b',',
    quote: Some(b'"'),
};

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let mut start = 0;
    let found: Vec<&str> = ends(QUOTED, text.as_bytes(), 0)
        .map(|end| &text[std::mem::replace(&mut start, end)..end])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn records_end_outside_of_quotes() {
    check("a,b\nc,d\n", &["a,b\n", "c,d\n"]);
    check("a,\"b\nc\"\nd,e\n", &["a,\"b\nc\"\n", "d,e\n"]);
    check(
        "\"a\"\"\n\",b\n\"\"\nc\n",
        &["\"a\"\"\n\",b\n", "\"\"\n", "c\n"],
    );
    // A quote within a value that did not begin with one stands for itself.
    check("5\" pipe,x\nb\n", &["5\" pipe,x\n", "b\n"]);
    check("a,\"open\nfor ever\n", &[]);
    check("a\r\n\"b\r\n\"\rc\r", &["a\r", "\n", "\"b\r\n\"\r", "c\r"]);
}

#[test]
fn starts_of_records_are_found_wherever_one_asks() {
    let text = "a,\"b\nc\"\nd,\"\"\"\n\"\ne,f\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it writes");
    let path = (
        file.path().to_str().expect("a plain name"),
        text.len() as u64,
    );
    let mut all: Vec<u64> = ends(QUOTED, text.as_bytes(), 0)
        .map(|end| end as u64)
        .collect();
    all.insert(0, 0);
    for wanted in 1..=text.len() as u64 {
        let found = record_starts(&Inputs::default(), path, QUOTED, &[wanted]);
        let found = found.expect("it reads");
        let first = all.iter().find(|start| **start >= wanted);
        assert_eq!(found.first(), first, "{wanted}");
    }
}
