use memchr::arch::all::is_equal;
use memchr::memmem::Finder;

/// What stands in front of a browser's version, its name, and what to add to the version. The first one that is there
/// counts: Edge says that it is Chrome, too.
const BROWSERS: [(&str, &str, i64); 4] = [
    ("Edg/", "Edge", 0),
    ("Chrome/", "Chrome", 0),
    ("Firefox/", "Firefox", 0),
    // Safari counts from 10 on, while the others are at a hundred and more.
    ("Version/", "Safari", 80),
];

const SYSTEMS: [(&str, &str); 5] = [
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
];

/// What a browser says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) family: &'static str,
    /// 0 where there is none.
    pub(crate) version: i64,
    pub(crate) system: &'static str,
}

/// Texts that are remembered, a power of two.
const KNOWN: usize = 1024;
/// Bytes of a text that is remembered.
const KNOWN_BYTES_MAX: usize = 512;

/// Takes user agents apart, and remembers what came of them: payments are many, browsers are few.
#[derive(Default)]
pub(crate) struct Agents {
    marks: Marks,
    /// Where a text may be known: its place follows from its bytes, and the last one there is kept.
    known: Vec<(Vec<u8>, Agent)>,
}

impl Agents {
    pub(crate) fn parse(&mut self, text: &[u8]) -> Agent {
        if text.len() > KNOWN_BYTES_MAX {
            return self.marks.parse(text);
        }
        if self.known.is_empty() {
            self.known = vec![(Vec::new(), self.marks.parse(b"")); KNOWN];
        }
        let (known, agent) = &mut self.known[place(text)];
        // In WebAssembly `==` goes byte by byte.
        if !is_equal(known, text) {
            known.clear();
            known.extend_from_slice(text);
            *agent = self.marks.parse(text);
        }
        *agent
    }
}

/// Spreads texts over [`KNOWN`] places, eight bytes at a time.
fn place(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words
        .iter()
        .chain([&last])
        .map(|word| u64::from_le_bytes(*word));
    let mixed = words.fold(text.len() as u64, |mixed, word| {
        (mixed.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (mixed >> 40) as usize % KNOWN
}

/// Searches that are prepared once.
struct Marks {
    browsers: [Finder<'static>; 4],
    bot: Finder<'static>,
    systems: [Finder<'static>; 5],
}

impl Default for Marks {
    fn default() -> Marks {
        Marks {
            browsers: BROWSERS.map(|(mark, ..)| Finder::new(mark)),
            bot: Finder::new("bot"),
            systems: SYSTEMS.map(|(mark, _)| Finder::new(mark)),
        }
    }
}

impl Marks {
    fn parse(&self, text: &[u8]) -> Agent {
        let (family, version) = self.browser(text);
        Agent {
            family,
            version,
            system: self.system(text),
        }
    }

    fn browser(&self, text: &[u8]) -> (&'static str, i64) {
        for (finder, (mark, family, more)) in self.browsers.iter().zip(BROWSERS) {
            if let Some(at) = finder.find(text) {
                return (
                    family,
                    number(&text[at + mark.len()..]).saturating_add(more),
                );
            }
        }
        let family = match self.bot.find(text) {
            Some(_) => "Bot",
            None => "Other",
        };
        (family, 0)
    }

    fn system(&self, text: &[u8]) -> &'static str {
        let mut systems = self.systems.iter().zip(SYSTEMS);
        systems
            .find(|(finder, _)| finder.find(text).is_some())
            .map_or("Other", |(_, (_, system))| system)
    }
}

/// The number that the text begins with, 0 if it begins with none.
fn number(text: &[u8]) -> i64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: i64, digit| {
        number
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, family: &str, version: i64, system: &str) {
        let agent = Agents::default().parse(text.as_bytes());
        let found = (agent.family, agent.version, agent.system);
        assert_eq!(found, (family, version, system), "{text}");
    }

    #[test]
    fn agents_are_taken_apart() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/101.0.7.12 Safari/537.36";
        check(chrome, "Chrome", 101, "Linux");
        let edge = format!("{chrome} Edg/99.0.7.5")
            .replace("X11; Linux x86_64", "Windows NT 10.0; Win64; x64");
        check(&edge, "Edge", 99, "Windows");
        let firefox =
            "Mozilla/5.0 (Linux; Android 14; Pixel 8; rv:88.0) Gecko/20100101 Firefox/88.0";
        check(firefox, "Firefox", 88, "Android");
        let safari =
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) Version/17.4 Safari/605.1.15";
        check(safari, "Safari", 97, "iOS");
        check(
            &safari
                .replace("iPhone;", "Macintosh;")
                .replace("iPhone", ""),
            "Safari",
            97,
            "macOS",
        );
        check(
            "Mozilla/5.0 (compatible; Crawlbot/2.7; +http://crawl.example/5)",
            "Bot",
            0,
            "Other",
        );
        check("curl/7.81.0", "Other", 0, "Other");
    }

    #[test]
    fn agents_are_remembered_as_what_they_are() {
        let mut agents = Agents::default();
        let texts: Vec<String> = (0..3 * KNOWN as i64)
            .map(|version| format!("Chrome/{version} {}", "x".repeat(version as usize % 600)))
            .collect();
        for _ in 0..2 {
            for (version, text) in (0..).zip(&texts) {
                assert_eq!(agents.parse(text.as_bytes()).version, version);
            }
        }
    }

    #[test]
    fn odd_agents_have_no_version_or_a_large_one() {
        check("", "Other", 0, "Other");
        check("Chrome/", "Chrome", 0, "Other");
        check("Chrome/x9", "Chrome", 0, "Other");
        check("Chrome/9 Chrome/10", "Chrome", 9, "Other");
        check("Version/99999999999999999999", "Safari", i64::MAX, "Other");
    }
}
