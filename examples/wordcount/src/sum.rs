use weft::BATCH_ROWS;
use weft::prelude::*;

use crate::counts;

/// Bytes of words after which a batch goes out that has fewer rows than it may.
const BATCH_BYTES: usize = 4 << 20;

/// Counts of a word in, their sum out.
#[derive(Default)]
pub(crate) struct Sum {
    n: i64,
    words: Utf8Builder,
    sums: Vec<i64>,
}

impl Reduce for Sum {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("word", DataType::Utf8)?;
        input.require("n", DataType::Int64)?;
        Ok(counts::schema())
    }

    fn open(_: &Params) -> Result<Sum> {
        Ok(Sum::default())
    }

    fn push(&mut self, rows: &Rows<'_>, _: &mut Output) -> Result<()> {
        self.n += rows.i64("n")?.as_slice()?.iter().sum::<i64>();
        Ok(())
    }

    fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()> {
        self.words.push(last.utf8("word")?.value(0));
        self.sums.push(std::mem::take(&mut self.n));
        if self.sums.len() >= BATCH_ROWS || self.words.n_bytes() >= BATCH_BYTES {
            self.emit(out)
        } else {
            Ok(())
        }
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        self.emit(out)
    }
}

impl Sum {
    fn emit(&mut self, out: &mut Output) -> Result<()> {
        let sums = std::mem::take(&mut self.sums);
        out.emit(Batch::new(
            &counts::schema(),
            [self.words.take(), sums.into()],
        )?)
    }
}
