//! Columns of text, aligned.

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// A table with a line of headings.
pub(crate) struct Table {
    sides: Vec<Side>,
    lines: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no row.
    pub(crate) fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            lines: vec![columns.iter().map(|(name, _)| (*name).into()).collect()],
        }
    }

    /// Appends a row, one cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.sides.len(), "one cell for each column");
        self.lines.push(cells);
    }

    /// The lines without a last line break. Two spaces stand between columns.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        let lines: Vec<String> = self
            .lines
            .iter()
            .map(|line| self.line(line, &widths))
            .collect();
        lines.join("\n")
    }

    /// The same without columns that have `-`, for nothing, in every row.
    pub(crate) fn render_used(&self) -> String {
        let rows = &self.lines[1..];
        let is_used =
            |column: &usize| rows.is_empty() || rows.iter().any(|row| row[*column] != "-");
        let used: Vec<usize> = (0..self.sides.len()).filter(is_used).collect();
        let pick = |line: &Vec<String>| -> Vec<String> {
            used.iter().map(|column| line[*column].clone()).collect()
        };
        let table = Self {
            sides: used.iter().map(|column| self.sides[*column]).collect(),
            lines: self.lines.iter().map(pick).collect(),
        };
        table.render()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let columns = cells.iter().zip(widths).zip(&self.sides);
        let padded: Vec<String> = columns
            .map(|((cell, width), side)| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[
            ("stage", Side::Left),
            ("rows", Side::Right),
            ("", Side::Left),
        ]);
        table.row(["visits".into(), "1,234".into(), String::new()]);
        table.row(["tøp".into(), "7".into(), "done".into()]);
        assert_eq!(
            table.render(),
            "stage    rows\nvisits  1,234\ntøp         7  done"
        );
    }

    #[test]
    fn columns_without_a_value_can_be_left_out() {
        let mut table = Table::new(&[("a", Side::Left), ("b", Side::Right), ("c", Side::Right)]);
        assert_eq!(table.render_used(), "a  b  c");
        table.row(["x".into(), "-".into(), "-".into()]);
        table.row(["y".into(), "-".into(), "7".into()]);
        assert_eq!(table.render_used(), "a  c\nx  -\ny  7");
    }
}
