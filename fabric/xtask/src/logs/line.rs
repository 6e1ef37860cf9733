//! One line after another.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::zipf::{Random, Zipf, mix};

const DAYS: u32 = 7;
const FIRST_DAY: u32 = 6;
const DAY_SECONDS: u32 = 86_400;
pub(super) const SPAN_SECONDS: u32 = DAYS * DAY_SECONDS;

const N_PAGES: u32 = 20_000;
const N_AGENTS: u32 = 400;
const N_REFERRERS: u32 = 200;
const BYTES_PER_VISITOR: u64 = 2_900;
const MIN_VISITORS: u32 = 2_000;
const MAX_VISITORS: u32 = 10_000_000;

/// Frequencies of pages fall faster than those of visitors and user agents: rank^-1.125, rank^-0.75.
const PAGES_EIGHTHS: u32 = 9;
const OTHERS_EIGHTHS: u32 = 6;

/// One of so many lines is malformed.
const MALFORMED_ONE_IN: u32 = 1_000;

/// Each line has one of 20.
const METHODS: [(u32, &[u8]); 3] = [(17, b"GET "), (19, b"POST "), (20, b"HEAD ")];
const QUERIES: [&[u8]; 3] = [b"?id=", b"?utm_source=mail&c=", b"?page="];
const N_QUERIES_OF_20: u32 = QUERIES.len() as u32;
const STATUSES: [&[u8]; 5] = [b"304", b"301", b"404", b"500", b"200"];

/// Texts, one after the other.
#[derive(Default)]
struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    fn new(n: u32, mut write: impl FnMut(u64, &mut String) -> std::fmt::Result) -> Texts {
        let mut texts = Texts::default();
        for index in 0..n {
            write(index.into(), &mut texts.text).expect("strings take everything");
            texts.ends.push(texts.text.len());
        }
        texts
    }

    #[inline]
    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text.as_bytes()[start..self.ends[index]]
    }
}

/// Texts and how often each comes.
struct Pool {
    texts: Texts,
    law: Zipf,
}

impl Pool {
    fn new(n: u32, eighths: u32, write: impl FnMut(u64, &mut String) -> std::fmt::Result) -> Pool {
        Pool {
            texts: Texts::new(n, write),
            law: Zipf::new(n, eighths),
        }
    }

    #[inline]
    fn draw(&self, random: &mut Random) -> &[u8] {
        self.texts.get(self.law.draw(random))
    }
}

/// The site and those who visit it; a larger log has more visitors, and is otherwise the same.
pub(super) struct Site {
    pages: Pool,
    visitors: Pool,
    agents: Pool,
    referrers: Texts,
}

impl Site {
    pub(super) fn new(size_bytes: u64) -> Site {
        let n_visitors = u32::try_from(size_bytes / BYTES_PER_VISITOR).unwrap_or(MAX_VISITORS);
        let n_visitors = n_visitors.clamp(MIN_VISITORS, MAX_VISITORS);
        Site {
            pages: Pool::new(N_PAGES, PAGES_EIGHTHS, page),
            visitors: Pool::new(n_visitors, OTHERS_EIGHTHS, address),
            agents: Pool::new(N_AGENTS, OTHERS_EIGHTHS, agent),
            referrers: Texts::new(N_REFERRERS, referrer),
        }
    }
}

fn page(index: u64, out: &mut String) -> std::fmt::Result {
    let (kind, number) = (mix(index * 3 + 1) % 10, mix(index * 3 + 2));
    match kind {
        _ if index == 0 => write!(out, "/"),
        0..5 => write!(out, "/products/category-{}/item-{index}.html", number % 60),
        5..7 => write!(out, "/blog/2025/{:02}/post-{index}", 1 + number % 12),
        7..9 => write!(out, "/static/js/chunk-{:03x}-{index}.js", number % 4096),
        _ => write!(out, "/api/v1/resource/{index}"),
    }
}

fn address(index: u64, out: &mut String) -> std::fmt::Result {
    let bits = mix(index * 11 + 5);
    let [a, b, c, d] = [
        bits % 223,
        (bits >> 8) % 256,
        (bits >> 16) % 256,
        (bits >> 24) % 254,
    ];
    write!(out, "{}.{b}.{c}.{}", 1 + a, 1 + d)
}

fn referrer(index: u64, out: &mut String) -> std::fmt::Result {
    match index {
        0..8 => write!(out, "-"),
        _ => write!(
            out,
            "https://ref{}.example.com/search?q=term{index}",
            mix(index) % 997
        ),
    }
}

fn agent(index: u64, out: &mut String) -> std::fmt::Result {
    const SYSTEMS: [&str; 5] = [
        "Windows NT 10.0; Win64; x64",
        "Macintosh; Intel Mac OS X 10_15_7",
        "X11; Linux x86_64",
        "Linux; Android 14; Pixel 8",
        "iPhone; CPU iPhone OS 17_4 like Mac OS X",
    ];
    const KIT: &str = "AppleWebKit/537.36 (KHTML, like Gecko)";
    let [system, version, kind, build] = [1, 2, 3, 4].map(|n| mix(index * 7 + n));
    let (system, version, build) = (
        SYSTEMS[(system % 5) as usize],
        70 + version % 60,
        build % 6000,
    );
    match kind % 100 {
        0..55 => write!(
            out,
            "Mozilla/5.0 ({system}) {KIT} Chrome/{version}.0.{build}.12 Safari/537.36"
        ),
        55..75 => write!(
            out,
            "Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"
        ),
        75..90 => write!(
            out,
            "Mozilla/5.0 ({system}) {KIT} Version/{}.1 Safari/605.1.15",
            version / 7
        ),
        90..96 => write!(
            out,
            "Mozilla/5.0 (compatible; Crawlbot/{}.0; +http://crawl.example/{build})",
            version % 5
        ),
        _ => write!(out, "curl/{}.{}.0", version % 8, version % 90),
    }
}

/// The lines of one file.
pub(super) struct Lines<'a> {
    site: &'a Site,
    random: Random,
    /// The time of `second` as logs have it.
    time: Vec<u8>,
    second: Option<u32>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(site: &'a Site, seed: u64, file: u32) -> Lines<'a> {
        Lines {
            site,
            random: Random::new(seed, file.into()),
            time: Vec::new(),
            second: None,
        }
    }

    /// Adds lines until there are `size_bytes` or more, and gives their number. `second` is asked with a line's position.
    pub(super) fn fill(
        &mut self,
        out: &mut Vec<u8>,
        size_bytes: usize,
        second: impl Fn(u64) -> u32,
    ) -> u64 {
        let mut n_lines = 0;
        while out.len() < size_bytes {
            self.set_time(second(out.len() as u64));
            match self.random.below(3 * MALFORMED_ONE_IN) {
                0 => out.push(b'-'),
                1 => self.address_and_time(out),
                2 => self.no_request(out),
                _ => self.request(out),
            }
            out.push(b'\n');
            n_lines += 1;
        }
        n_lines
    }

    fn set_time(&mut self, second: u32) {
        if self.second == Some(second) {
            return;
        }
        let (day, of_day) = (FIRST_DAY + second / DAY_SECONDS, second % DAY_SECONDS);
        let (hour, minute, of_minute) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        self.time.clear();
        write!(
            self.time,
            " - - [{day:02}/Oct/2025:{hour:02}:{minute:02}:{of_minute:02}"
        )
        .expect("memory takes all");
        self.second = Some(second);
    }

    #[inline]
    fn address_and_time(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.site.visitors.draw(&mut self.random));
        out.extend_from_slice(&self.time);
    }

    fn no_request(&mut self, out: &mut Vec<u8>) {
        self.address_and_time(out);
        out.extend_from_slice(b" +0000] \"-\" 408 0 \"-\" \"-\"");
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        self.address_and_time(out);
        out.extend_from_slice(b" +0000] \"");
        let kind = self.random.below(20);
        let method = METHODS
            .iter()
            .find(|(below, _)| kind < *below)
            .expect("the last one is 20");
        out.extend_from_slice(method.1);
        out.extend_from_slice(self.site.pages.draw(&mut self.random));
        self.query(out);
        out.extend_from_slice(b" HTTP/1.1\" ");
        out.extend_from_slice(STATUSES[self.random.below(20).min(4) as usize]);
        out.push(b' ');
        number(out, 200 + self.random.below(60_000));
        out.extend_from_slice(b" \"");
        out.extend_from_slice(
            self.site
                .referrers
                .get(self.random.below(N_REFERRERS) as usize),
        );
        out.extend_from_slice(b"\" \"");
        out.extend_from_slice(self.site.agents.draw(&mut self.random));
        out.push(b'"');
    }

    fn query(&mut self, out: &mut Vec<u8>) {
        let kind = self.random.below(20);
        if kind < N_QUERIES_OF_20 {
            out.extend_from_slice(QUERIES[kind as usize]);
            number(out, self.random.below(100_000));
        }
    }
}

fn number(out: &mut Vec<u8>, number: u32) {
    write!(out, "{number}").expect("memory takes all");
}
