//! Plans of stages as text, for people: what a check answers with, and what a job keeps beside its archive.

use std::fmt::{self, Display, Write};

use serde::{Deserialize, Serialize};
use weft_core::JobId;

/// Bytes of one line. A list of literals may be much longer.
pub const MAX_PLAN_LINE_BYTES: usize = 2 << 10;
/// Bytes of the lines of one stage.
pub const MAX_STAGE_TEXT_BYTES: usize = 32 << 10;
/// Bytes of the lines of all stages of a job.
pub const MAX_PLAN_TEXT_BYTES: usize = 1 << 20;
/// End of a line that is cut.
const CUT: &str = " .. (cut)";

/// Plan of one stage for people, a list of lines for each of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageText {
    /// Files and stages that the tasks read.
    pub reads: Vec<String>,
    /// Operators of a SQL stage from the top, each indented by two spaces below the one that it feeds.
    pub operators: Vec<String>,
    /// Functions, each after the one that feeds it.
    pub functions: Vec<String>,
    /// Ways of the rows out of the stage.
    pub writes: Vec<String>,
    /// Lines that the bounds left out.
    pub omitted_lines: u64,
}

impl StageText {
    /// Leaves out lines above [`MAX_STAGE_TEXT_BYTES`] and above `left` bytes, and takes the rest from `left`.
    #[must_use]
    pub fn within(mut self, left: &mut usize) -> Self {
        let room = MAX_STAGE_TEXT_BYTES.min(*left);
        let mut used = 0;
        let lists = [
            &mut self.reads,
            &mut self.writes,
            &mut self.functions,
            &mut self.operators,
        ];
        for lines in lists {
            let n = lines.len();
            let fitting = lines.iter().take_while(|line| {
                let fits = used + line.len() <= room;
                used += if fits { line.len() } else { 0 };
                fits
            });
            let n_kept = fitting.count();
            lines.truncate(n_kept);
            self.omitted_lines += (n - n_kept) as u64;
        }
        *left -= used;
        self
    }
}

/// Key of the plan of a job as text: a JSON list of [`StageText`], by stage.
///
/// It lies beside the job's archive, whose life it shares: objects under the job's prefix go when the job has ended.
pub fn plan_text_key(job: &JobId) -> String {
    format!("archive/{job}.plan.json")
}

/// Formats one line of at most [`MAX_PLAN_LINE_BYTES`]; a cut is marked. Control characters become blanks.
pub fn plan_line(text: impl Display) -> String {
    let mut line = Line::default();
    // An error ends a text that is too long, and what was written stays.
    let _ = write!(line, "{text}");
    let mut text = line.text.replace(char::is_control, " ");
    if line.is_cut {
        text.push_str(CUT);
    }
    text
}

#[derive(Default)]
struct Line {
    text: String,
    is_cut: bool,
}

impl Write for Line {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = MAX_PLAN_LINE_BYTES - CUT.len() - self.text.len();
        if piece.len() <= room {
            self.text.push_str(piece);
            return Ok(());
        }
        self.text
            .push_str(&piece[..piece.floor_char_boundary(room)]);
        self.is_cut = true;
        // The rest is not even formatted.
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_bound() {
        assert_eq!(plan_line("a\nb = 'ø'"), "a b = 'ø'");
        let longest = "x".repeat(MAX_PLAN_LINE_BYTES - CUT.len());
        assert_eq!(plan_line(&longest), longest);
        let cut = plan_line(format_args!("{longest}ø and more"));
        assert_eq!(cut, format!("{longest}{CUT}"));
        assert_eq!(cut.len(), MAX_PLAN_LINE_BYTES);
        let wide = plan_line("ø".repeat(MAX_PLAN_LINE_BYTES));
        assert!(wide.ends_with(CUT) && wide.len() <= MAX_PLAN_LINE_BYTES);
    }

    #[test]
    fn lines_above_the_bounds_are_counted() {
        let line = "x".repeat(1 << 10);
        let text = || StageText {
            reads: vec![line.clone(); 2],
            operators: vec![line.clone(); 100],
            writes: vec![line.clone()],
            ..StageText::default()
        };
        let mut left = MAX_STAGE_TEXT_BYTES + (2 << 10);
        let first = text().within(&mut left);
        assert_eq!((first.operators.len(), first.omitted_lines), (29, 71));
        assert_eq!((first.reads.len(), first.writes.len()), (2, 1));
        let second = text().within(&mut left);
        assert_eq!((second.reads.len(), second.omitted_lines), (2, 101));
        assert_eq!(left, 0);
        let small = StageText {
            operators: vec!["Scan".into()],
            ..StageText::default()
        };
        let mut left = MAX_PLAN_TEXT_BYTES;
        assert_eq!(small.clone().within(&mut left), small);
        assert_eq!(left, MAX_PLAN_TEXT_BYTES - 4);
    }
}
