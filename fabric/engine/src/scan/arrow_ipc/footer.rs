//! The footer of an Arrow file.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader};
use std::ops::Range;

use arrow::ipc::{Block, MessageHeader, root_as_footer, root_as_message};

use super::{InputFile, METADATA_BYTES_MAX, invalid};

/// The end of a file: the length of its footer, and the magic.
const FILE_END_BYTES: u64 = 10;

/// Stands behind the last message.
const END_MARK: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Positions of a file's blocks, as its footer says. Needed if messages cannot be read one after the other; a file
/// whose footer cannot be read may be read so all the same.
pub(super) struct Footer {
    begins: u64,
    dictionaries: Vec<u64>,
    batches: Vec<u64>,
}

impl Footer {
    pub(super) fn read(file: &InputFile, file_bytes: u64) -> Option<Self> {
        let end = file_bytes.checked_sub(FILE_END_BYTES)?;
        let mut length = [0; 4];
        file.read_exact_at(&mut length, end).ok()?;
        let length = u64::from(u32::from_le_bytes(length));
        let begins = end.checked_sub(length).filter(|begins| *begins >= 8)?;
        if length > METADATA_BYTES_MAX {
            return None;
        }
        let mut footer = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut footer, begins).ok()?;
        let footer = root_as_footer(&footer).ok()?;
        let offset = |block: &Block| u64::try_from(block.offset()).ok();
        let dictionaries = footer.dictionaries();
        let dictionaries = dictionaries.iter().flat_map(|blocks| blocks.iter());
        let batches = footer.recordBatches();
        let batches = batches.iter().flat_map(|blocks| blocks.iter());
        Some(Self {
            begins,
            dictionaries: dictionaries.map(offset).collect::<Option<_>>()?,
            batches: batches.map(offset).collect::<Option<_>>()?,
        })
    }

    /// The schema's message, if its length does not stand before it: some writers leave it to the footer. It ends
    /// where the first block begins, or the footer does.
    pub(super) fn schema_without_length(
        &self,
        file: &mut BufReader<InputFile>,
        begins: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let Some(first) = file.fill_buf()?.first_chunk::<4>().copied() else {
            return Ok(None);
        };
        if first == [0xff; 4] {
            return Ok(None);
        }
        let blocks = self.dictionaries.iter().chain(&self.batches);
        let ends = blocks.copied().min().unwrap_or(self.begins);
        let bytes = ends.min(self.begins).checked_sub(begins);
        let Some(bytes) = bytes.filter(|bytes| *bytes <= METADATA_BYTES_MAX) else {
            return Ok(None);
        };
        let mut schema = vec![0; usize::try_from(bytes).map_err(|_| invalid("a schema"))?];
        file.get_ref().read_exact_at(&mut schema, begins)?;
        // Without a block, the mark of the end lies between the schema and the footer.
        if schema.ends_with(&END_MARK) {
            schema.truncate(schema.len() - END_MARK.len());
        }
        // Files of old have a length of four bytes.
        let length = usize::try_from(u32::from_le_bytes(first)).unwrap_or(usize::MAX);
        let of_old = schema[4.min(schema.len())..].get(..length);
        let is_schema = |bytes: &[u8]| {
            root_as_message(bytes).is_ok_and(|found| found.header_type() == MessageHeader::Schema)
        };
        Ok((!of_old.is_some_and(is_schema) && is_schema(&schema)).then_some(schema))
    }

    /// Dictionaries before the batches that are wanted, if the file has them in another order.
    pub(super) fn order(&self, wanted: &Range<u64>) -> Option<VecDeque<u64>> {
        let first_batch = self.batches.iter().min()?;
        let last_dictionary = self.dictionaries.iter().max()?;
        let batches = self.batches.iter().filter(|offset| wanted.contains(offset));
        let all = self.dictionaries.iter().chain(batches);
        (last_dictionary > first_batch).then(|| all.copied().collect())
    }
}
