//! Statements of a text, told apart by `;`. Executors parse them.

/// One statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlStatement<'a> {
    /// The statement from its first word on, without the `;`.
    pub text: &'a str,
    /// Line of its first word, from 1.
    pub line: usize,
}

/// Splits a text at each `;` outside of literals, names in quotes and comments. Comments and blanks alone are no
/// statement.
pub fn sql_statements(text: &str) -> Vec<SqlStatement<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line, mut start) = (0, 1, None);
    while at < text.len() {
        let (piece, bytes) = piece(&text[at..]);
        match piece {
            Piece::Blank => {}
            Piece::Part => {
                start.get_or_insert((at, line));
            }
            Piece::End => found.extend(start.take().map(|(from, line)| SqlStatement {
                text: &text[from..at],
                line,
            })),
        }
        line += text[at..at + bytes].matches('\n').count();
        at += bytes;
    }
    found.extend(start.map(|(from, line)| SqlStatement {
        text: &text[from..],
        line,
    }));
    found
}

/// Kind of a piece of a text.
enum Piece {
    /// White space or a comment.
    Blank,
    /// A word, a literal or an operator.
    Part,
    /// A semicolon.
    End,
}

/// The first piece of a text that is not empty, and its bytes.
fn piece(rest: &str) -> (Piece, usize) {
    let first = rest.chars().next().unwrap_or(' ');
    match first {
        ';' => (Piece::End, 1),
        '-' if rest.starts_with("--") => (Piece::Blank, rest.find('\n').unwrap_or(rest.len())),
        '/' if rest.starts_with("/*") => (Piece::Blank, comment(rest)),
        '\'' | '"' | '`' => (Piece::Part, quoted(rest, first)),
        '$' => (Piece::Part, in_dollars(rest)),
        blank if blank.is_whitespace() => (Piece::Blank, blank.len_utf8()),
        letter if is_word(letter) => (Piece::Part, word(rest)),
        other => (Piece::Part, other.len_utf8()),
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Bytes of a word, or of a literal `E'..'`, in which a backslash takes the sense of a quote.
fn word(rest: &str) -> usize {
    let end = rest.find(|letter: char| !is_word(letter) && !['$', '#', '@'].contains(&letter));
    let end = end.unwrap_or(rest.len());
    if !rest[..end].eq_ignore_ascii_case("e") || !rest[end..].starts_with('\'') {
        return end;
    }
    let mut is_escaped = false;
    for (at, letter) in rest.char_indices().skip(2) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '\'' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes of a text in quotes. One that holds a doubled quote is two such texts side by side.
fn quoted(rest: &str, quote: char) -> usize {
    rest[1..].find(quote).map_or(rest.len(), |end| end + 2)
}

/// Bytes of a literal `$$..$$` or `$tag$..$tag$`, or of a placeholder `$1`.
fn in_dollars(rest: &str) -> usize {
    let tag = rest[1..].find(|letter: char| !is_word(letter));
    let tag = tag.map_or(rest.len(), |end| end + 1);
    if !rest[tag..].starts_with('$') {
        return tag;
    }
    let (open, body) = rest.split_at(tag + 1);
    body.find(open)
        .map_or(rest.len(), |end| open.len() + end + open.len())
}

/// Bytes of a comment `/* .. */`, which may hold others.
fn comment(rest: &str) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let Some(next) = rest[at..].find(['/', '*']) else {
            return rest.len();
        };
        at += next;
        match rest.get(at..at + 2) {
            Some("/*") => (at, depth) = (at + 2, depth + 1),
            Some("*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, usize)]) {
        let found = sql_statements(text);
        let found = found.iter().map(|one| (one.text, one.line));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn statements_end_at_semicolons() {
        check("SELECT 1", &[("SELECT 1", 1)]);
        check("SELECT 1;\n", &[("SELECT 1", 1)]);
        check(
            "-- a view\nCREATE VIEW a AS SELECT 1;\n\n/* its\nrows */ SELECT * FROM a ;;SELECT 2",
            &[
                ("CREATE VIEW a AS SELECT 1", 2),
                ("SELECT * FROM a ", 5),
                ("SELECT 2", 5),
            ],
        );
        for none in ["", " \n;", "-- nothing;", "/* ; */ ;"] {
            check(none, &[]);
        }
    }

    #[test]
    fn semicolons_in_texts_and_comments_are_no_end() {
        for whole in [
            "SELECT 'a;b' AS x",
            "SELECT 'it''s;' AS x",
            "SELECT E'it\\'s;' AS x",
            "SELECT 'a\\' AS x",
            "SELECT 1 AS \"a;b\", `c;d`",
            "SELECT $$a;$b$$ AS x, $t$a;$$;$t$ AS y, $1",
            "SELECT 1 -- a;b",
            "SELECT 1 -- a;b\n + 2",
            "SELECT /* a; /* b; */ c; */ 1",
            "SELECT a$b$ AS x",
            "SELECT 'é;' AS ü",
        ] {
            check(whole, &[(whole, 1)]);
            let first = format!("{whole}\n");
            let second = ("SELECT 2", 2 + whole.matches('\n').count());
            check(&format!("{first};SELECT 2"), &[(first.as_str(), 1), second]);
        }
    }

    #[test]
    fn what_is_never_closed_goes_to_the_end() {
        for open in [
            "SELECT 'a;",
            "SELECT \"a;",
            "SELECT E'a\\';",
            "SELECT $a$;$b$",
            "SELECT 1 /* ; *",
        ] {
            check(open, &[(open, 1)]);
        }
    }
}
