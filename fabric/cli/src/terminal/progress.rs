//! Progress of a job: bars that are redrawn on a terminal, and plain lines elsewhere, one for each
//! step worth a line.

use weft_client::{Job, Stage};

use crate::terminal::Output;
use crate::terminal::text::{count, counted};

/// Width that every terminal has.
const LINE_CHARS: usize = 79;
const BAR_CHARS: usize = 20;
const NAME_CHARS_MAX: usize = 20;
/// A partition with so many times the mean of rows, in thousandths, is worth a word.
const SKEW_MILLI: u64 = 2000;
/// Lines that are drawn at most, so that they fit the height of a terminal.
const LINES_MAX: usize = 16;

/// The state of a job that has been told already.
#[derive(Default)]
pub(crate) struct Progress {
    status: String,
    /// By stage: its status, and tenths of its tasks.
    stages: Vec<(String, u64)>,
}

impl Progress {
    /// Tells what is new.
    pub(crate) fn show(&mut self, job: &Job, output: &mut Output) {
        if output.redraws() {
            output.draw(&drawn(job));
            if job.has_ended() {
                output.keep();
            }
        } else {
            self.plain(job).iter().for_each(|line| output.note(line));
        }
    }

    fn plain(&mut self, job: &Job) -> Vec<String> {
        let mut lines = self.plain_stages(job);
        // How it ended is told with its outputs.
        if self.status != job.status && !job.has_ended() {
            self.status.clone_from(&job.status);
            lines.insert(0, format!("{} {}", job.id, job.status));
        }
        lines
    }

    fn plain_stages(&mut self, job: &Job) -> Vec<String> {
        let mut lines = Vec::new();
        self.stages.resize_with(job.stages.len(), Default::default);
        for (told, stage) in self.stages.iter_mut().zip(&job.stages) {
            let now = (stage.status.clone(), tenths(stage));
            if stage.status != "waiting" && *told != now {
                lines.push(format!(
                    "  {} {}: {}",
                    stage.name,
                    stage.status,
                    figures(stage).join(", ")
                ));
            }
            *told = now;
        }
        lines
    }
}

fn tenths(stage: &Stage) -> u64 {
    (stage.tasks_done * 10)
        .checked_div(stage.tasks_total)
        .unwrap_or(0)
}

/// The figures of a stage, the most important first.
fn figures(stage: &Stage) -> Vec<String> {
    let mut figures = vec![format!(
        "{}/{}",
        count(stage.tasks_done),
        counted(stage.tasks_total, "task")
    )];
    if stage.retries > 0 {
        figures.push(format!("{} retried", count(stage.retries)));
    }
    if stage.skew.over_mean_milli >= SKEW_MILLI && stage.status == "done" {
        let times = stage.skew.over_mean_milli as f64 / 1000.0;
        figures.push(format!(
            "task {} has {times:.1} times the mean",
            stage.skew.task
        ));
    }
    if stage.bad_records > 0 {
        let bad = counted(stage.bad_records, "bad record");
        figures.push(format!("{bad} left out"));
    }
    if stage.rows_read > 0 || stage.rows_written > 0 {
        figures.push(format!("{} in", counted(stage.rows_read, "row")));
        figures.push(format!("{} out", count(stage.rows_written)));
    }
    figures
}

fn drawn(job: &Job) -> Vec<String> {
    let mut lines = vec![format!("{} {}", job.id, job.status)];
    let stages = stages_that_fit(&job.stages);
    let name_chars = stages
        .iter()
        .map(|stage| stage.name.chars().count())
        .max()
        .unwrap_or(0);
    lines.extend(
        stages
            .iter()
            .map(|stage| bar_line(stage, name_chars.min(NAME_CHARS_MAX))),
    );
    let n_left_out = job.stages.len() - stages.len();
    if n_left_out > 0 {
        lines.push(format!(
            "  and {}",
            counted(n_left_out as u64, "more stage")
        ));
    }
    lines
}

/// The stages that are drawn: where they are too many, those that are neither done nor far off.
fn stages_that_fit(stages: &[Stage]) -> &[Stage] {
    let n_lines = LINES_MAX.min(stages.len());
    let first = stages
        .iter()
        .position(|stage| stage.status != "done")
        .unwrap_or(stages.len());
    let first = first.min(stages.len() - n_lines);
    &stages[first..first + n_lines]
}

fn bar_line(stage: &Stage, name_chars: usize) -> String {
    let name: String = stage.name.chars().take(name_chars).collect();
    let n_full = (stage.tasks_done * BAR_CHARS as u64).checked_div(stage.tasks_total);
    let n_full = usize::try_from(n_full.unwrap_or(0)).map_or(BAR_CHARS, |n| n.min(BAR_CHARS));
    let (full, empty) = ("#".repeat(n_full), "-".repeat(BAR_CHARS - n_full));
    let mut line = format!("  {name:<name_chars$} [{full}{empty}]");
    for (separator, figure) in std::iter::once(" ")
        .chain(std::iter::repeat(", "))
        .zip(figures(stage))
    {
        // A figure that does not fit is left out whole: half a number would be another one.
        if line.chars().count() + separator.len() + figure.len() > LINE_CHARS {
            break;
        }
        line.push_str(separator);
        line.push_str(&figure);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, status: &str, tasks_done: u64, tasks_total: u64) -> Stage {
        Stage {
            name: name.into(),
            status: status.into(),
            tasks_done,
            tasks_total,
            ..Stage::default()
        }
    }

    fn job(stages: Vec<Stage>) -> Job {
        Job {
            id: "job-1".into(),
            status: "running".into(),
            stages,
            ..Job::default()
        }
    }

    #[test]
    fn bars_show_what_is_done() {
        let mut visits = stage("visits", "running", 12, 24);
        visits.rows_read = 1_234_567;
        visits.rows_written = 1_233_000;
        visits.retries = 1;
        visits.bad_records = 7;
        let drawn = drawn(&job(vec![visits, stage("daily", "waiting", 0, 0)]));
        let expected = [
            "job-1 running",
            "  visits [##########----------] 12/24 tasks, 1 retried, 7 bad records left out",
            "  daily  [--------------------] 0/0 tasks",
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn many_stages_are_a_window_on_what_runs() {
        let stages: Vec<Stage> = (0..40)
            .map(|n| {
                stage(
                    &format!("s{n}"),
                    if n < 10 { "done" } else { "waiting" },
                    0,
                    1,
                )
            })
            .collect();
        let drawn = drawn(&job(stages.clone()));
        assert!(
            drawn[1].contains("s10") && drawn[LINES_MAX].contains("s25"),
            "{drawn:?}"
        );
        assert_eq!(drawn[LINES_MAX + 1], "  and 24 more stages");
        let done: Vec<Stage> = stages
            .iter()
            .map(|s| Stage {
                status: "done".into(),
                ..s.clone()
            })
            .collect();
        assert!(super::drawn(&job(done))[LINES_MAX].contains("s39"));
    }

    #[test]
    fn plain_lines_come_once_a_step() {
        let mut progress = Progress::default();
        let waiting = job(vec![stage("a", "waiting", 0, 0)]);
        assert_eq!(progress.plain(&waiting), ["job-1 running"]);
        assert!(progress.plain(&waiting).is_empty());
        let lines: Vec<String> = (0..=100)
            .flat_map(|n| progress.plain(&job(vec![stage("a", "running", n, 100)])))
            .collect();
        assert_eq!(lines.len(), 11, "{lines:?}");
        assert_eq!(lines[10], "  a running: 100/100 tasks");
        assert_eq!(
            progress
                .plain(&job(vec![stage("a", "done", 100, 100)]))
                .len(),
            1
        );
    }
}
