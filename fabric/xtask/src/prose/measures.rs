//! The measures: each finds its offenders in the text of one file.

use std::ops::RangeInclusive;

use super::code::{code_of, functions, is_word, line_at, test_parts};

/// Words that make a doc line read like a riddle.
const OPENINGS: [&str; 5] = ["What", "Where", "That", "Its", "Of"];

const COLUMNS_MAX: usize = 120;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// A rule whose offenders are counted.
pub(super) struct Measure {
    /// The name in the ratchet file.
    pub(super) name: &'static str,
    /// The offenders, in words.
    pub(super) offenders: &'static str,
    /// Finds them in one file.
    pub(super) find: fn(&Source) -> Vec<Offender>,
}

/// All measures, in the order of the ratchet file.
pub(super) const MEASURES: [Measure; 4] = [
    Measure {
        name: "doc-openings",
        offenders: "doc lines that open with What, Where, That, Its or Of",
        find: doc_openings,
    },
    Measure {
        name: "long-prose-lines",
        offenders: "lines of comments, docs and Markdown above 120 columns",
        find: long_prose_lines,
    },
    Measure {
        name: "long-files",
        offenders: "Rust files above 600 lines, tests left out",
        find: long_files,
    },
    Measure {
        name: "long-functions",
        offenders: "functions above 70 lines, tests left out",
        find: long_functions,
    },
];

/// A place that a measure counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offender {
    pub(super) path: String,
    pub(super) lines: RangeInclusive<usize>,
    /// The line itself, or how long it is.
    pub(super) detail: String,
}

/// A file as the measures see it.
pub(super) struct Source {
    path: String,
    text: String,
    /// See [`code_of`]; `None` for Markdown.
    code: Option<String>,
}

impl Source {
    /// A file of Rust where the path ends in `.rs`, and of Markdown otherwise.
    pub(super) fn new(path: String, text: String) -> Source {
        let code = path.ends_with(".rs").then(|| code_of(&text));
        Source { path, text, code }
    }

    fn offender(&self, lines: RangeInclusive<usize>, detail: String) -> Offender {
        Offender {
            path: self.path.clone(),
            lines,
            detail,
        }
    }

    /// Lines that are comments or docs and nothing else, with their numbers.
    fn comments(&self) -> Vec<(usize, &str)> {
        let code = self.code.as_deref().unwrap_or_default();
        let lines = (1..).zip(self.text.lines()).zip(code.lines());
        lines
            .filter(|(_, code)| code.trim().is_empty())
            .map(|(numbered, _)| numbered)
            .filter(|(_, line)| line.trim_start().starts_with("//"))
            .collect()
    }

    /// Lines that people read as text, with their numbers.
    fn prose(&self) -> Vec<(usize, &str)> {
        match self.code {
            Some(_) => self.comments(),
            None => markdown_prose(&self.text),
        }
    }

    /// The code, where sizes count: not in files of tests.
    fn sized_code(&self) -> Option<&str> {
        let mut names = self.path.rsplit('/');
        let is_test = names.next() == Some("tests.rs") || names.any(|name| name == "tests");
        self.code.as_deref().filter(|_| !is_test)
    }
}

fn doc_openings(source: &Source) -> Vec<Offender> {
    let comments = source.comments().into_iter();
    comments
        .filter(|(_, line)| is_riddle(line))
        .map(|(number, line)| source.offender(number..=number, line.trim().to_owned()))
        .collect()
}

fn is_riddle(comment: &str) -> bool {
    let opening = doc_of(comment).and_then(|doc| {
        let mut words = doc.trim_start().split(|letter| !is_word(letter));
        words.next()
    });
    opening.is_some_and(|word| OPENINGS.contains(&word))
}

/// The text of a doc line; `None` for any other comment, such as `////`.
fn doc_of(comment: &str) -> Option<&str> {
    let comment = comment.trim_start();
    let outer = comment.strip_prefix("///");
    outer
        .filter(|doc| !doc.starts_with('/'))
        .or_else(|| comment.strip_prefix("//!"))
}

fn long_prose_lines(source: &Source) -> Vec<Offender> {
    let lines = source.prose().into_iter();
    lines
        .map(|(number, line)| (number, line.chars().count()))
        .filter(|(_, columns)| *columns > COLUMNS_MAX)
        .map(|(number, columns)| source.offender(number..=number, format!("{columns} columns")))
        .collect()
}

/// The lines of Markdown outside tables and fenced code, with their numbers.
fn markdown_prose(text: &str) -> Vec<(usize, &str)> {
    let mut open = None;
    let mut prose = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (open, fence_of(line)) {
            (None, Some(fence)) => open = Some(fence),
            (Some(opened), Some(fence)) if fence.starts_with(opened) && line.trim() == fence => {
                open = None;
            }
            (None, None) if !line.trim_start().starts_with('|') => prose.push((number, line)),
            _ => {}
        }
    }
    prose
}

/// The run of backticks or tildes that opens or closes fenced code.
fn fence_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|mark| "`~".contains(*mark))?;
    let length = line.len() - line.trim_start_matches(mark).len();
    (length >= 3).then(|| &line[..length])
}

fn long_files(source: &Source) -> Vec<Offender> {
    let Some(code) = source.sized_code() else {
        return Vec::new();
    };
    let all = code.lines().count();
    let parts = test_parts(code).into_iter();
    let tests: usize = parts.map(|part| code[part].lines().count()).sum();
    let lines = all - tests;
    let is_long = lines > FILE_LINES_MAX;
    let offender = is_long.then(|| source.offender(1..=all, format!("{lines} lines")));
    offender.into_iter().collect()
}

fn long_functions(source: &Source) -> Vec<Offender> {
    let code = source.sized_code().unwrap_or_default();
    let tests = test_parts(code);
    let mut offenders = Vec::new();
    for function in functions(code) {
        let start = function.bytes.start;
        let lines = code[function.bytes].lines().count();
        if lines > FUNCTION_LINES_MAX && !tests.iter().any(|part| part.contains(&start)) {
            let first = line_at(code, start);
            let detail = format!("`{}` has {lines} lines", function.name);
            offenders.push(source.offender(first..=first + lines - 1, detail));
        }
    }
    offenders
}

#[cfg(test)]
mod tests {
    use super::*;

    type Find = fn(&Source) -> Vec<Offender>;

    /// The first lines of the offenders in a file.
    fn found(find: Find, path: &str, text: &str) -> Vec<usize> {
        let offenders = find(&Source::new(path.to_owned(), text.to_owned()));
        offenders.iter().map(|found| *found.lines.start()).collect()
    }

    #[test]
    fn riddles_are_doc_lines_that_open_with_one_of_the_words() {
        let text =
            "//! What it is.\n\n/// A name.\n///   Of its owner.\n    ///That's it.\nfn a() {}\n";
        assert_eq!(found(doc_openings, "a.rs", text), [1, 4, 5]);
    }

    #[test]
    fn other_lines_are_no_riddles() {
        let text =
            "// What\n//// What\n/// Whatever\n/// of\n/// Often\n/// - Its\nlet a = 1; /// Of\n";
        assert_eq!(found(doc_openings, "a.rs", text), []);
        let text = "let a = \"\n/// What\n\";\nlet b = r\"\n/// Its\n\";\n";
        assert_eq!(found(doc_openings, "a.rs", text), []);
        assert_eq!(found(doc_openings, "a.md", "/// What\n"), []);
    }

    #[test]
    fn columns_are_letters() {
        let letters = "é".repeat(COLUMNS_MAX - 3);
        let text = format!("// {letters}\n// {letters}é\n    /// {letters}\n//! {letters}\n");
        assert_eq!(found(long_prose_lines, "a.rs", &text), [2, 3, 4]);
        let text = format!("let a = \"{letters}\";\nlet b = \"\n// {letters}é\n\";\n");
        assert_eq!(found(long_prose_lines, "a.rs", &text), []);
    }

    #[test]
    fn tables_and_fenced_code_are_no_prose() {
        let long = "x".repeat(COLUMNS_MAX + 1);
        let text = format!("{long}\n| {long} |\n```rust\n{long}\n~~~\n{long}\n```\n- {long}\n");
        assert_eq!(found(long_prose_lines, "a.md", &text), [1, 8]);
        let text = format!("~~~~\n~~~\n{long}\n~~~~ a\n{long}\n~~~~~\n`{long}`\n");
        assert_eq!(found(long_prose_lines, "a.md", &text), [7]);
    }

    #[test]
    fn long_files_are_measured_without_their_tests() {
        let lines = |count: usize| "a;\n".repeat(count);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(FILE_LINES_MAX));
        let short = lines(FILE_LINES_MAX) + &tests;
        assert_eq!(found(long_files, "src/a.rs", &short), []);
        let long = lines(FILE_LINES_MAX + 1) + &tests;
        assert_eq!(found(long_files, "src/a.rs", &long), [1]);
        for path in ["src/tests.rs", "tests/a.rs", "src/tests/a/b.rs", "a.md"] {
            assert_eq!(found(long_files, path, &long), [], "{path}");
        }
    }

    #[test]
    fn long_functions_are_found_outside_tests() {
        let function = |count: usize| format!("fn a() {{\n{}}}\n", "a;\n".repeat(count - 2));
        let fits = function(FUNCTION_LINES_MAX);
        let long = function(FUNCTION_LINES_MAX + 1);
        let text = format!("{fits}\n{long}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(
            found(long_functions, "src/a.rs", &text),
            [FUNCTION_LINES_MAX + 2]
        );
        assert_eq!(found(long_functions, "tests/a.rs", &text), []);
        let offenders = long_functions(&Source::new("a.rs".to_owned(), long));
        assert_eq!(offenders[0].lines, 1..=FUNCTION_LINES_MAX + 1);
        assert_eq!(offenders[0].detail, "`a` has 71 lines");
    }
}
