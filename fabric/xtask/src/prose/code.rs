//! Rust text without its comments and literals, and the functions and tests in it.
//!
//! No parser: enough of the lexical rules that brackets and words are those of the code.

use std::ops::Range;

/// Stands for the letters of a literal, so that a line inside one does not look blank.
const LITERAL: char = '"';

/// Rust text whose comments are blank and whose literals are quotes. Its lines are those of `text`.
pub(super) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let Some((length, filler)) = hidden(rest) else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (letters, after) = rest.split_at(length);
        code.extend(letters.chars().map(|letter| match letter {
            '\n' => letter,
            _ => filler,
        }));
        rest = after;
    }
    code
}

/// The length of the comment or literal that `rest` begins with, and the letter that replaces it.
fn hidden(rest: &str) -> Option<(usize, char)> {
    if rest.starts_with("//") {
        return Some((rest.find('\n').unwrap_or(rest.len()), ' '));
    }
    if rest.starts_with("/*") {
        return Some((block_comment(rest), ' '));
    }
    let literal = match rest.chars().next()? {
        '"' => Some(string(rest)),
        '\'' => character(rest),
        'r' => raw_string(rest),
        _ => None,
    };
    literal.map(|length| (length, LITERAL))
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(found) = rest[at..].find(['/', '*']) {
        at += found;
        let change = match rest.get(at..at + 2) {
            Some("/*") => 1,
            Some("*/") => -1,
            _ => 0,
        };
        depth += change;
        at += if change == 0 { 1 } else { 2 };
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return at + 1,
            '\\' => {
                letters.next();
            }
            _ => {}
        }
    }
    rest.len()
}

/// `None` for a lifetime or a label.
fn character(rest: &str) -> Option<usize> {
    let mut letters = rest.char_indices().skip(1);
    let (_, first) = letters.next()?;
    let (second_at, second) = letters.next()?;
    if first != '\\' {
        return (second == '\'').then_some(second_at + 1);
    }
    letters
        .find(|(_, letter)| *letter == '\'')
        .map(|(at, _)| at + 1)
}

/// `None` for a word that begins with `r`, and for a raw identifier.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &after[..hashes]);
    let opening = rest.len() - body.len();
    let closing = body.find(&end).map(|at| opening + at + end.len());
    Some(closing.unwrap_or(rest.len()))
}

/// The number of the line that holds the byte `at`.
pub(super) fn line_at(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}

pub(super) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// A function with a body, from its `fn` to the closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: Range<usize>,
}

/// The functions in [`code_of`] a file, those inside others too.
pub(super) fn functions(code: &str) -> Vec<Function<'_>> {
    let starts = code.match_indices("fn ").map(|(start, _)| start);
    starts
        .filter(|start| !code[..*start].ends_with(is_word))
        .filter_map(|start| function(code, start))
        .collect()
}

/// `None` for a type like `fn (u8)`, and for a function without a body.
fn function(code: &str, start: usize) -> Option<Function<'_>> {
    let after = &code[start + "fn ".len()..];
    let name = after.split(|letter| !is_word(letter)).next()?;
    if name.is_empty() {
        return None;
    }
    let bytes = start..closing(code, body(code, start)?);
    Some(Function { name, bytes })
}

/// The opening brace of the body of the function at `start`.
fn body(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, letter) in code[start..].char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(start + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The end of the brackets that open at the byte `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, letter) in code[open..].char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The parts `#[cfg(test)] mod tests { .. }` of [`code_of`] a file.
pub(super) fn test_parts(code: &str) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let is_nested = parts.last().is_some_and(|part| part.contains(&start));
        let item = after_attributes(code, start);
        if !is_nested && code[item..].starts_with("mod tests {") {
            let open = item + "mod tests ".len();
            parts.push(start..closing(code, open));
        }
    }
    parts
}

/// The byte at which the item begins whose attributes begin at `start`.
fn after_attributes(code: &str, start: usize) -> usize {
    let mut at = start;
    while code[at..].starts_with("#[") {
        let rest = &code[closing(code, at + 1)..];
        at = code.len() - rest.trim_start().len();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are left of a text.
    fn words(text: &str) -> Vec<String> {
        let code = code_of(text).replace(LITERAL, " ");
        code.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(words("a // b\nc"), ["a", "c"]);
        assert_eq!(words("a /* b /* c */ d */ e /**/ f"), ["a", "e", "f"]);
        assert_eq!(words("a / b * c"), ["a", "/", "b", "*", "c"]);
        assert_eq!(words("a /* without end"), ["a"]);
    }

    #[test]
    fn literals_are_no_code() {
        assert_eq!(words(r#"a "b \" // c" d"#), ["a", "d"]);
        assert_eq!(words(r###"a r#"b " c"# d r"\" e"###), ["a", "d", "e"]);
        assert_eq!(words(r"a b'{' '\'' '\u{7d}' 'é' c"), ["a", "b", "c"]);
        assert_eq!(
            words("&'a str 'b: loop r#fn"),
            ["&'a", "str", "'b:", "loop", "r#fn"]
        );
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "/* a\nb */ \"c\n\n\" r\"\n\" // é\nd";
        let code = code_of(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(line_at(&code, code.find('d').expect("it is code")), 6);
    }

    fn names(text: &str) -> Vec<(String, usize)> {
        let code = code_of(text);
        let lines = |function: Function<'_>| {
            let lines = code[function.bytes].lines().count();
            (function.name.to_owned(), lines)
        };
        functions(&code).into_iter().map(lines).collect()
    }

    #[test]
    fn functions_end_at_their_closing_brace() {
        let text = "pub fn a(b: [u8; 2]) -> u8 {\n    '}'; \"}\"; // }\n    {}\n}\nfn c() {}\n";
        assert_eq!(names(text), [("a".to_owned(), 4), ("c".to_owned(), 1)]);
        let text = "fn a() {\n    fn b() {\n    }\n}\n";
        assert_eq!(names(text), [("a".to_owned(), 4), ("b".to_owned(), 2)]);
    }

    #[test]
    fn not_every_fn_is_a_function() {
        assert_eq!(names("trait A { fn a(&self) -> [u8; 2]; }"), []);
        assert_eq!(
            names("type A = fn (u8); // fn b() {}\nlet often = \"fn c() {}\";"),
            []
        );
        assert_eq!(
            names("macro_rules! a { (fn $name:ident) => { fn $name() {} } }"),
            []
        );
    }

    #[test]
    fn inline_tests_are_found() {
        let parts = |text: &str| {
            let code = code_of(text);
            let parts = test_parts(&code).into_iter();
            parts.map(|part| code[part].to_owned()).collect::<Vec<_>>()
        };
        let text =
            "#[cfg(test)]\n#[expect(a, reason = \"]\")]\nmod tests {\n    fn a() {}\n}\nfn b() {}";
        let [part] = &parts(text)[..] else {
            panic!("{:?}", parts(text));
        };
        assert!(part.ends_with("fn a() {}\n}"), "{part}");
        assert!(parts("#[cfg(test)]\nmod tests;\nfn a() {}").is_empty());
        assert!(parts("mod tests {}\n#[cfg(test)]\nfn a() {}").is_empty());
        assert_eq!(
            parts("#[cfg(test)]\nmod tests {\n    #[cfg(test)]\n    mod tests {}\n}").len(),
            1
        );
    }
}
