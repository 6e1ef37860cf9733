use weft::BATCH_ROWS;
use weft::prelude::*;

use crate::rows;

/// Payments of one browser and system: how many, their kilometres, each rounded down, and their scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    n: i64,
    km: i64,
    score: i64,
}

impl Sum {
    fn add(&mut self, more: Sum) {
        self.n += more.n;
        self.km += more.km;
        self.score += more.score;
    }
}

fn schema() -> Schema {
    Schema::new()
        .utf8("fam")
        .utf8("os")
        .i64("n")
        .i64("km")
        .i64("score")
}

/// Rows for output.
#[derive(Default)]
struct Lines {
    families: Utf8Builder,
    systems: Utf8Builder,
    n: Vec<i64>,
    km: Vec<i64>,
    scores: Vec<i64>,
}

impl Lines {
    fn push(&mut self, family: &str, system: &str, sum: Sum) {
        self.families.push(family);
        self.systems.push(system);
        self.n.push(sum.n);
        self.km.push(sum.km);
        self.scores.push(sum.score);
    }

    fn emit(&mut self, out: &mut Output) -> Result<()> {
        let lines = std::mem::take(self);
        out.emit(Batch::new(
            &schema(),
            [
                lines.families.into(),
                lines.systems.into(),
                lines.n.into(),
                lines.km.into(),
                lines.scores.into(),
            ],
        )?)
    }
}

/// Scores in, sums by browser and system out: a task's own, once, at its end.
///
/// Browsers and systems are so few that they are looked through one by one, in the order in which they came first; their first
/// letters are compared before the names are.
#[derive(Default)]
pub(crate) struct TaskSums {
    letters: Vec<u64>,
    sums: Vec<(String, String, Sum)>,
}

/// The first four letters of both names.
fn letters((family, system): (&str, &str)) -> u64 {
    let add = |letters, letter| letters << 8 | u64::from(letter);
    let first = |name: &str| name.bytes().take(4).fold(0, add);
    first(family) << 32 | first(system)
}

/// Browsers and systems that a task remembers before it lets them go.
const SUMS_MAX: usize = 1000;

impl Map for TaskSums {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        for field in rows::schema().fields() {
            input.require(&field.name, field.data_type.clone())?;
        }
        Ok(schema())
    }

    fn open(_: &Params) -> Result<TaskSums> {
        Ok(TaskSums::default())
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let names = input.utf8("fam")?.iter().zip(input.utf8("os")?.iter());
        let (km, scores) = (input.i64("km")?, input.i64("score")?);
        let numbers = km.as_slice()?.iter().zip(scores.as_slice()?);
        for ((family, system), (km, score)) in names.zip(numbers) {
            let names = (family.unwrap_or_default(), system.unwrap_or_default());
            self.of(names).add(Sum {
                n: 1,
                km: *km,
                score: *score,
            });
            if self.sums.len() > SUMS_MAX {
                self.drain(out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        self.drain(out)
    }
}

impl TaskSums {
    fn of(&mut self, names: (&str, &str)) -> &mut Sum {
        let wanted = letters(names);
        let is_it = |(letters, sum): (&u64, &(String, String, Sum))| {
            *letters == wanted && (sum.0.as_str(), sum.1.as_str()) == names
        };
        let mut known = self.letters.iter().zip(&self.sums);
        let position = known.position(is_it).unwrap_or_else(|| {
            let (family, system) = names;
            self.letters.push(wanted);
            self.sums
                .push((family.into(), system.into(), Sum::default()));
            self.sums.len() - 1
        });
        &mut self.sums[position].2
    }

    fn drain(&mut self, out: &mut Output) -> Result<()> {
        let mut lines = Lines::default();
        self.letters.clear();
        for (family, system, sum) in self.sums.drain(..) {
            lines.push(&family, &system, sum);
        }
        lines.emit(out)
    }
}

/// Sums of a browser and system in, their sum out.
#[derive(Default)]
pub(crate) struct Sums {
    sum: Sum,
    lines: Lines,
}

impl Reduce for Sums {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        for field in schema().fields() {
            input.require(&field.name, field.data_type.clone())?;
        }
        Ok(schema())
    }

    fn open(_: &Params) -> Result<Sums> {
        Ok(Sums::default())
    }

    fn push(&mut self, rows: &Rows<'_>, _: &mut Output) -> Result<()> {
        let sum = |name| Ok::<i64, Error>(rows.i64(name)?.as_slice()?.iter().sum());
        self.sum.add(Sum {
            n: sum("n")?,
            km: sum("km")?,
            score: sum("score")?,
        });
        Ok(())
    }

    fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()> {
        let (family, system) = (last.utf8("fam")?.value(0), last.utf8("os")?.value(0));
        self.lines
            .push(family, system, std::mem::take(&mut self.sum));
        if self.lines.n.len() >= BATCH_ROWS {
            self.lines.emit(out)
        } else {
            Ok(())
        }
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        self.lines.emit(out)
    }
}
