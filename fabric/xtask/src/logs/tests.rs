use super::*;

fn request(size_bytes: u64, n_files: u32, seed: u64) -> Request {
    Request {
        size_bytes,
        folder: PathBuf::new(),
        n_files,
        seed,
    }
}

/// A file as it would be written, in chunks of `chunk_bytes`.
fn file(request: &Request, file: u32, chunk_bytes: u64) -> String {
    let site = Site::new(request.size_bytes);
    let mut lines = Lines::new(&site, request.seed, file);
    let mut all = Vec::new();
    while (all.len() as u64) < request.share() {
        let (at, mut chunk) = (all.len() as u64, Vec::new());
        let left = chunk_bytes.min(request.share() - at);
        lines.fill(&mut chunk, left as usize, |position| {
            second(request, file, at + position)
        });
        all.extend(chunk);
    }
    String::from_utf8(all).expect("logs are ASCII")
}

/// What a combined log line needs, read by splitting: address, date, method and path, status.
fn is_well_formed(line: &str) -> bool {
    let parts: Vec<&str> = line.split('"').collect();
    let [head, request, status, _referrer, _, _agent, ""] = parts[..] else {
        return false;
    };
    let status: Vec<&str> = status.split(' ').collect();
    let words: Vec<&str> = request.split(' ').collect();
    head.split(' ').count() == 6
        && matches!(words[..], ["GET" | "POST" | "HEAD", path, "HTTP/1.1"] if path.starts_with('/'))
        && matches!(status[..], ["", code, size, ""] if code.len() == 3 && size.parse::<u32>().is_ok())
}

fn day(line: &str) -> Option<&str> {
    line.split_once('[').map(|(_, rest)| &rest[..11])
}

#[test]
fn equal_seeds_give_equal_files_and_others_do_not() {
    let (first, second) = (request(200_000, 2, 1), request(200_000, 2, 2));
    assert_eq!(file(&first, 0, 1 << 20), file(&first, 0, 5_000));
    assert_ne!(file(&first, 0, 1 << 20), file(&first, 1, 1 << 20));
    assert_ne!(file(&first, 0, 1 << 20), file(&second, 0, 1 << 20));
}

/// The bytes themselves, so that figures of one version can be compared with those of another.
#[test]
fn the_first_line_never_changes() {
    let text = file(&request(1_000, 1, 1), 0, 1 << 20);
    let expected = concat!(
        "29.106.108.220 - - [06/Oct/2025:00:00:00 +0000] \"GET /static/js/chunk-ca5-7.js HTTP/1.1\" 200 12941 ",
        "\"https://ref98.example.com/search?q=term81\" \"Mozilla/5.0 (Windows NT 10.0; Win64; x64) ",
        "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/73.0.4877.12 Safari/537.36\"",
    );
    assert_eq!(text.lines().next(), Some(expected));
}

#[test]
fn one_line_of_a_thousand_is_malformed() {
    let text = file(&request(20_000_000, 1, 3), 0, 1 << 20);
    let n_lines = text.lines().count();
    let n_malformed = text.lines().filter(|line| !is_well_formed(line)).count();
    let expected = n_lines as f64 / 1000.0;
    assert!(n_lines > 50_000, "{n_lines}");
    assert!(
        (n_malformed as f64 - expected).abs() < 5.0 * expected.sqrt(),
        "{n_malformed} of {n_lines}"
    );
}

#[test]
fn files_hold_their_share_and_days_follow_each_other() {
    let request = request(2_000_000, 3, 4);
    let files: Vec<String> = (0..3).map(|index| file(&request, index, 1 << 20)).collect();
    for text in &files {
        assert!((666_666..667_666).contains(&text.len()) && text.ends_with('\n'));
    }
    let mut days: Vec<&str> = files
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(day)
        .collect();
    assert!(days.is_sorted());
    days.dedup();
    assert_eq!(days.len(), 7);
    assert_eq!((days[0], days[6]), ("06/Oct/2025", "12/Oct/2025"));
}

#[test]
fn some_pages_are_asked_for_more_often() {
    let text = file(&request(5_000_000, 1, 5), 0, 1 << 20);
    let n_requests = |page: &str| text.matches(&format!(" {page} HTTP")).count();
    assert!(
        n_requests("/")
            > 2 * text
                .matches("item-4.html")
                .count()
                .max(text.matches("post-4 ").count())
    );
    let n_queries = text
        .lines()
        .filter(|line| line.contains("?id=") || line.contains("?page="))
        .count();
    let expected = text.lines().count() as f64 * 0.1;
    assert!(
        (n_queries as f64 - expected).abs() < 5.0 * expected.sqrt(),
        "{n_queries}, not {expected}"
    );
}

#[test]
fn flags_are_read() {
    let parse =
        |line: &str| Request::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let found = parse("--bytes 2KB --out=x --files 3 --seed=9").expect("good usage");
    assert_eq!(
        found,
        Request {
            folder: "x".into(),
            ..request(2_000, 3, 9)
        }
    );
    for wrong in [
        "--out",
        "--bytes 1MB",
        "--out x --bytes 1XB",
        "--out x --files 0",
        "--out x --size 1",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(bytes("3MiB").expect("a size"), 3 << 20);
    assert!(bytes("99999999999GB").is_err() && bytes("MB").is_err());
}
