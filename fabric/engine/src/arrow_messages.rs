//! Arrow messages one after another, with their lengths in front: those who pass them on need not know Arrow.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
    write_message,
};
use weft_protocol::MessageHead;

/// Writes a schema and batches as messages, see [`MessageHead`].
pub(crate) struct MessageWriter<W> {
    to: W,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl<W: Write> MessageWriter<W> {
    /// Begins with the schema.
    pub(crate) fn try_new(to: W, schema: &Schema) -> Result<Self, ArrowError> {
        let mut writer = Self {
            to,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        };
        let encoded = writer.generator.schema_to_bytes_with_dictionary_tracker(
            schema,
            &mut writer.dictionaries,
            &writer.options,
        );
        writer.message(&encoded)?;
        Ok(writer)
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let (dictionaries, rows) = self.generator.encode(
            batch,
            &mut self.dictionaries,
            &self.options,
            &mut self.context,
        )?;
        for dictionary in &dictionaries {
            self.message(dictionary)?;
        }
        self.message(&rows)
    }

    pub(crate) fn into_inner(self) -> W {
        self.to
    }

    fn message(&mut self, encoded: &EncodedData) -> Result<(), ArrowError> {
        let header_bytes = u32::try_from(encoded.ipc_message.len()).map_err(|_| {
            let what = "the header of an Arrow message is larger than 4 GiB";
            ArrowError::IpcError(what.into())
        })?;
        let head = MessageHead {
            header_bytes,
            body_bytes: encoded.arrow_data.len() as u64,
        };
        self.to.write_all(&head.encode())?;
        self.to.write_all(&encoded.ipc_message)?;
        Ok(self.to.write_all(&encoded.arrow_data)?)
    }
}

/// A schema as the beginning of an Arrow stream.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default();
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut DictionaryTracker::new(false),
        &options,
    );
    let mut bytes = Vec::new();
    write_message(&mut bytes, encoded, &options)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::ipc::reader::StreamReader;

    use super::*;

    /// The messages as a stream, put together again by their lengths alone.
    fn stream(mut bytes: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk() {
            let head = MessageHead::decode(*head);
            let header = usize::try_from(head.header_bytes).expect("a short header");
            let body = usize::try_from(head.body_bytes).expect("a short body");
            let message = EncodedData {
                ipc_message: rest[..header].to_vec(),
                arrow_data: rest[header..header + body].to_vec(),
            };
            let options = IpcWriteOptions::default();
            write_message(&mut stream, message, &options).expect("it writes");
            bytes = &rest[header + body..];
        }
        assert!(bytes.is_empty(), "{bytes:?}");
        stream
    }

    #[test]
    fn messages_are_taken_apart_by_their_lengths() {
        let numbers = |from: i64, to: i64| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
            RecordBatch::try_from_iter([("n", numbers)]).expect("one column")
        };
        let batches = [numbers(0, 3), numbers(3, 5)];
        let mut writer =
            MessageWriter::try_new(Vec::new(), &batches[0].schema()).expect("it begins");
        for batch in &batches {
            writer.write(batch).expect("it writes");
        }
        let stream = stream(&writer.into_inner());
        let reader = StreamReader::try_new(stream.as_slice(), None).expect("a stream");
        let read: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
        assert_eq!(read, batches);
    }

    #[test]
    fn a_schema_is_a_stream_without_rows() {
        let bytes = schema_bytes(&Schema::empty()).expect("it writes");
        let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
        assert!(reader.schema().fields().is_empty());
    }
}
