//! Statements without rows, known by their first word. Executors parse them.

/// First words of statements that change tables or write files, and have no rows to show.
const COMMANDS: [&str; 4] = ["create", "drop", "copy", "insert"];

/// Returns whether a statement changes tables or writes files: its job has no output of its own.
pub fn is_sql_command(statement: &str) -> bool {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|first: char| first.is_whitespace() || first == ';');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            let end = rest.find(|letter: char| !letter.is_ascii_alphabetic());
            let word = &rest[..end.unwrap_or(rest.len())];
            return COMMANDS.iter().any(|one| word.eq_ignore_ascii_case(one));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_by_their_first_word() {
        for (statement, expected) in [
            ("CREATE VIEW a AS SELECT 1", true),
            (
                "\n -- a view\n/* of\nmine */ create view a AS SELECT 1",
                true,
            ),
            ("Drop TABLE a", true),
            ("COPY(SELECT 1) TO 'a/'", true),
            ("SELECT 1 -- CREATE", false),
            ("WITH created AS (SELECT 1) SELECT * FROM created", false),
            ("SHOW TABLES", false),
            ("created", false),
            ("-- CREATE", false),
            ("", false),
        ] {
            assert_eq!(is_sql_command(statement), expected, "{statement}");
        }
    }
}
