//! Functions of components that a statement calls, found by their tokens: `component.function(`.
//!
//! A job's functions are fixed when it is accepted, long before an executor parses its statements. Comments, texts and
//! quoted names are told apart as the parser does, and no other SQL has a name, a dot, a name and a parenthesis.
//! Executors compare what they parse with what was found here.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::CharIndices;

/// Functions of components that one statement may call.
pub const MAX_SQL_FUNCTIONS: usize = 64;

/// The name of a component or a function that a statement writes so: names with `-` may have `_` in its place, unless
/// they are quoted.
pub fn function_name(name: &str, is_quoted: bool) -> String {
    match is_quoted {
        true => name.to_owned(),
        false => name.to_ascii_lowercase().replace('_', "-"),
    }
}

/// References of the functions that a statement calls: `component/function`, with a version if the component is quoted
/// with one, as in `"geo@1.2.0".km(..)`.
pub fn sql_functions(sql: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let tokens = Tokens {
        sql,
        rest: sql.char_indices().peekable(),
    };
    // The tokens so far that may become a call.
    let mut before: Vec<Token> = Vec::new();
    for token in tokens {
        if token == Token::Open
            && let [
                ..,
                Token::Name(component),
                Token::Dot,
                Token::Name(function),
            ] = &before[..]
            && !matches!(&before[..], [.., Token::Dot, _, _, _])
        {
            found.insert(format!("{component}/{function}"));
        }
        match token {
            Token::Name(_) | Token::Dot => before.push(token),
            Token::Open | Token::Other => before.clear(),
        }
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A name, as components and functions have it.
    Name(String),
    Dot,
    Open,
    Other,
}

struct Tokens<'a> {
    sql: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let (start, character) = self.rest.next()?;
            let after = self.rest.peek().map(|(_, character)| *character);
            return Some(match (character, after) {
                (space, _) if space.is_whitespace() => continue,
                ('-', Some('-')) => {
                    self.skip_line();
                    continue;
                }
                ('/', Some('*')) => {
                    self.skip_comment();
                    continue;
                }
                ('\'', _) => {
                    self.quoted('\'', false);
                    Token::Other
                }
                ('e' | 'E', Some('\'')) => {
                    self.rest.next();
                    self.quoted('\'', true);
                    Token::Other
                }
                ('"' | '`', _) => Token::Name(function_name(&self.quoted(character, false), true)),
                ('$', _) => {
                    self.skip_dollars(start);
                    Token::Other
                }
                ('.', _) => Token::Dot,
                ('(', _) => Token::Open,
                (first, _) if is_start(first) => {
                    let end = self.end_of_word();
                    Token::Name(function_name(&self.sql[start..end], false))
                }
                // Digits and dots belong to it: `1.5` is no name.
                (digit, _) if digit.is_ascii_digit() => {
                    while self
                        .rest
                        .next_if(|(_, next)| is_part(*next) || *next == '.')
                        .is_some()
                    {}
                    Token::Other
                }
                _ => Token::Other,
            });
        }
    }
}

impl Tokens<'_> {
    fn end_of_word(&mut self) -> usize {
        while self.rest.next_if(|(_, next)| is_part(*next)).is_some() {}
        self.position()
    }

    fn position(&mut self) -> usize {
        self.rest.peek().map_or(self.sql.len(), |(at, _)| *at)
    }

    fn skip_line(&mut self) {
        while self.rest.next().is_some_and(|(_, next)| next != '\n') {}
    }

    /// Skips the rest of a comment, which may hold others.
    fn skip_comment(&mut self) {
        let mut before = '/';
        let mut depth = 0u32;
        for (_, next) in self.rest.by_ref() {
            let pair = (before, next);
            // A character belongs to one mark.
            before = ' ';
            match pair {
                ('/', '*') => depth += 1,
                ('*', '/') if depth == 1 => return,
                ('*', '/') => depth -= 1,
                _ => before = next,
            }
        }
    }

    /// Text up to the quote that ends it. Two quotes stand for one; a backslash keeps what follows if `escapes`.
    fn quoted(&mut self, quote: char, escapes: bool) -> String {
        let mut text = String::new();
        while let Some((_, next)) = self.rest.next() {
            match next {
                '\\' if escapes => {
                    self.rest.next();
                }
                next if next == quote && self.rest.next_if(|(_, two)| *two == quote).is_none() => {
                    return text;
                }
                next => text.push(next),
            }
        }
        text
    }

    /// Skips a text between `$tag$` and `$tag$`, if the dollar at `start` begins one.
    fn skip_dollars(&mut self, start: usize) {
        let end = self.end_of_word_between_dollars();
        if self.rest.next_if(|(_, next)| *next == '$').is_none() {
            return;
        }
        let tag = &self.sql[start..=end];
        let after = end + 1;
        if let Some(length) = self.sql[after..].find(tag) {
            let end = after + length + tag.len();
            while self.rest.next_if(|(at, _)| *at < end).is_some() {}
        }
    }

    fn end_of_word_between_dollars(&mut self) -> usize {
        let is_tag = |next: char| next.is_alphanumeric() || next == '_';
        while self.rest.next_if(|(_, next)| is_tag(*next)).is_some() {}
        self.position()
    }
}

fn is_start(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '_' | '#' | '@')
}

fn is_part(character: char) -> bool {
    is_start(character) || character.is_ascii_digit() || character == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, expected: &[&str]) {
        let found: Vec<String> = sql_functions(sql).into_iter().collect();
        assert_eq!(found, expected, "{sql}");
    }

    #[test]
    fn calls_are_found_wherever_they_stand() {
        let sql = "SELECT u.country, sum(Geo.KM(o.lat, o.lon)) FROM 'a.b(' o JOIN users u ON geo.near(o.x, u.x) \
                   WHERE CASE WHEN geo . km (1.5, 2) < 50 THEN text.is_short(u.name) END GROUP BY 1";
        check(sql, &["geo/km", "geo/near", "text/is-short"]);
        check(
            "SELECT geo_utils.great_circle(1)",
            &["geo-utils/great-circle"],
        );
        check("SELECT \"geo-utils\".\"km\"(1)", &["geo-utils/km"]);
        check("SELECT \"geo@1.2.0-dev\".km(1)", &["geo@1.2.0-dev/km"]);
    }

    #[test]
    fn what_is_no_call_is_not_found() {
        for sql in [
            "SELECT count(*), o.id IN (1), t.a FROM o JOIN (SELECT 1) AS t USING (id)",
            "SELECT 1 -- geo.km(1)\n, /* geo.km(1) /* */ geo.km(2) */ 2",
            "SELECT 'geo.km(1)', 'it''s geo.km(', E'it\\'s geo.km(', $$geo.km($$, $a$ geo.km( $a$",
            "SELECT a.b.c(1), \"geo.km\"(1), 1.5, 1.e(2)",
            "SELECT 'no end geo.km(",
            "/* no end geo.km(",
            "$ geo",
            "",
        ] {
            check(sql, &[]);
        }
        check("SELECT E'a\\\\', geo.km(1), $1", &["geo/km"]);
        check("SELECT $a$ $b$ $a$, geo.km(1)", &["geo/km"]);
        check("/* a */ SELECT geo.km(1) --", &["geo/km"]);
    }
}
