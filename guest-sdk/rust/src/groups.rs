use std::ops::Range;

use crate::batch::Batch;
use crate::functions::{Output, Reduce};
use crate::view::{Columns, View};
use crate::{Error, Result};

/// Some rows of one group: never none, and all in one batch.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    batch: &'a Batch,
    range: Range<usize>,
}

impl<'a> Rows<'a> {
    /// How many rows there are.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// The batch that they lie in, together with rows of other groups.
    pub fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// Where in the batch they lie.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Columns for Rows<'_> {
    fn column(&self, name: &str) -> Result<View<'_>> {
        self.batch
            .view(self.batch.schema().index_of(name)?, self.range())
    }
}

/// Cuts batches into groups, and calls a [`Reduce`] for each.
pub(crate) struct Groups<R> {
    reduce: R,
    /// The last rows of a group that goes on in the next batch.
    open: Option<(Batch, Range<usize>)>,
}

impl<R: Reduce> Groups<R> {
    pub(crate) fn new(reduce: R) -> Groups<R> {
        Groups { reduce, open: None }
    }

    /// `ends`: the row after the last one of each group; `continues`: the last group goes on in the next call.
    pub(crate) fn push(
        &mut self,
        batch: Batch,
        ends: &[u32],
        continues: bool,
        out: &mut Output,
    ) -> Result<()> {
        check(&batch, ends)?;
        let mut range = 0..0;
        for (group, end) in ends.iter().enumerate() {
            range = range.end..*end as usize;
            let ended = !(continues && group + 1 == ends.len());
            if range.is_empty() {
                // Only the first group can be empty here: one that went on, and had no more rows.
                if ended {
                    self.end_open(out)?;
                }
                continue;
            }
            let rows = Rows {
                batch: &batch,
                range: range.clone(),
            };
            self.reduce.push(&rows, out)?;
            if ended {
                self.reduce.end(&rows, out)?;
                self.open = None;
            }
        }
        if continues && !range.is_empty() {
            self.open = Some((batch, range));
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, out: &mut Output) -> Result<()> {
        self.end_open(out)?;
        self.reduce.finish(out)
    }

    fn end_open(&mut self, out: &mut Output) -> Result<()> {
        match self.open.take() {
            Some((batch, range)) => self.reduce.end(
                &Rows {
                    batch: &batch,
                    range,
                },
                out,
            ),
            None => Ok(()),
        }
    }
}

fn check(batch: &Batch, ends: &[u32]) -> Result<()> {
    let rows = batch.rows();
    if ends.windows(2).any(|pair| pair[0] >= pair[1])
        || ends.last().copied().unwrap_or(0) as usize != rows
    {
        return Err(Error::new(format!(
            "ends of groups must rise to the `{rows}` rows of the batch"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    /// Emits for each group its key, its rows, and its pushes.
    struct Count(i64, i64);

    fn counts() -> Schema {
        Schema::new().utf8("key").i64("rows").i64("pushes")
    }

    impl Reduce for Count {
        fn bind(_: &Schema, _: &Params) -> Result<Schema> {
            Ok(counts())
        }
        fn open(_: &Params) -> Result<Count> {
            Ok(Count(0, 0))
        }
        fn push(&mut self, rows: &Rows<'_>, _: &mut Output) -> Result<()> {
            self.0 += rows.utf8("key")?.len() as i64;
            self.1 += 1;
            Ok(())
        }
        fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()> {
            let key = last.utf8("key")?.value(0);
            let columns = [
                Column::from_iter([key]),
                vec![self.0].into(),
                vec![self.1].into(),
            ];
            *self = Count(0, 0);
            out.emit(Batch::new(&counts(), columns)?)
        }
    }

    fn check(pushes: &[(&str, &[u32], bool)], expected: &[&str]) {
        let (mut groups, mut out) = (Groups::new(Count(0, 0)), Output::new());
        for (keys, ends, continues) in pushes {
            let keys = Column::from_iter(keys.split_terminator(' '));
            let batch = Batch::new(&Schema::new().utf8("key"), [keys]).expect("one column");
            groups
                .push(batch, ends, *continues, &mut out)
                .expect("ends fit");
        }
        groups.finish(&mut out).expect("ends");
        assert_eq!(crate::testing::rows(&out.sink.into_batches()), expected);
    }

    #[test]
    fn groups_are_put_together() {
        check(&[("a a b", &[2, 3], false)], &["a | 2 | 1", "b | 1 | 1"]);
        check(
            &[("a b", &[1, 2], true), ("b c", &[1, 2], false)],
            &["a | 1 | 1", "b | 2 | 2", "c | 1 | 1"],
        );
        check(
            &[("a", &[1], true), ("a", &[1], true), ("a", &[1], false)],
            &["a | 3 | 3"],
        );
        check(&[], &[]);
    }

    #[test]
    fn a_group_that_went_on_may_have_no_more_rows() {
        check(
            &[("a", &[1], true), ("b", &[0, 1], false)],
            &["a | 1 | 1", "b | 1 | 1"],
        );
        check(
            &[("a", &[1], true), ("", &[0], true), ("a", &[1], false)],
            &["a | 2 | 2"],
        );
        check(&[("a", &[1], true), ("", &[], true)], &["a | 1 | 1"]);
        check(&[("a", &[1], true)], &["a | 1 | 1"]);
    }
}
