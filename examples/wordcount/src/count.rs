use weft::prelude::*;

use crate::counts::{self, Counts, WORDS_MAX};
use crate::split::each_word;

/// Lines in, words with counts out: what a task has seen of a word, or of as many words as its table holds.
///
/// The parameter `max-words` says how many different words a task holds in memory.
pub(crate) struct Count {
    counts: Counts,
}

impl Map for Count {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        if input.field("line")?.data_type != DataType::Utf8 {
            input.require("line", DataType::Binary)?;
        }
        Ok(counts::schema())
    }

    fn open(params: &Params) -> Result<Count> {
        Ok(Count {
            counts: Counts::new(params.parse("max-words", WORDS_MAX)?),
        })
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let lines = input.binary("line")?;
        let (text, offsets) = lines.as_slices();
        for (row, ends) in offsets.windows(2).enumerate() {
            if lines.is_null(row) {
                continue;
            }
            each_word(text, ends[0] as usize..ends[1] as usize, |start, end| {
                if self.counts.add(text, start, end) {
                    self.counts.drain(out)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        self.counts.drain(out)?;
        let n = self.counts.n_not_utf8();
        if n > 0 {
            weft::warn!("counted {n} words that are not UTF-8, with U+FFFD for what is not");
        }
        Ok(())
    }
}
