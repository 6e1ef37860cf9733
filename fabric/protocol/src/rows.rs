//! Rows that somebody waits for: which ones, and how they are sent.

use serde::{Deserialize, Serialize};
use weft_core::JobId;
use weft_core::job::{OutputFormat, OutputSpec};

/// Rows that somebody wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RowsRequest {
    /// Pairs the answer with the question.
    pub request: u64,
    /// The rows.
    pub of: RowsOf,
    /// Format that they are sent in.
    pub format: RowsFormat,
}

/// Origin of rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsOf {
    /// Files of a published output.
    Output(Box<OutputRows>),
    /// Values that the controller knows.
    Listing(Listing),
}

impl RowsOf {
    /// The name of the rows in errors.
    pub fn name(&self) -> &str {
        match self {
            Self::Output(rows) => &rows.output.name,
            Self::Listing(_) => "listing",
        }
    }
}

/// Rows of a published output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputRows {
    /// The job.
    pub job: JobId,
    /// The output.
    pub output: OutputSpec,
    /// Rows that are passed over.
    pub offset: u64,
    /// Most rows that are sent; all if there is no limit.
    pub limit: Option<u64>,
}

/// Values that a controller lists and an executor encodes: controllers write no Arrow. All columns have one length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The columns in order.
    pub columns: Vec<ListingColumn>,
}

/// A column of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingColumn {
    /// The name.
    pub name: String,
    /// The values.
    pub values: ListingValues,
}

/// Values of a column of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingValues {
    /// Texts.
    Texts {
        /// The values: none of them is null.
        values: Vec<String>,
        /// The column says that there may be nulls.
        nullable: bool,
    },
    /// Schemas of tables, each as an Arrow stream without rows.
    Schemas {
        /// Names and definitions of the tables, as executors wrote them.
        tables: Vec<(String, String)>,
    },
}

/// Format in which rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsFormat {
    /// A format of files: not Parquet, which is not written as it goes.
    File(OutputFormat),
    /// Arrow messages, each behind a [`MessageHead`]: whoever passes them on need not parse them.
    Messages,
}

/// Lengths of the two parts of an Arrow message, which follow.
///
/// ```text
/// header length (4 bytes) | body length (8 bytes) | header | body
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHead {
    /// Bytes of the header.
    pub header_bytes: u32,
    /// Bytes of the body.
    pub body_bytes: u64,
}

impl MessageHead {
    /// Bytes of the encoded lengths.
    pub const BYTES: usize = 12;

    /// Encodes the lengths, little-endian.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[4..].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes
    }

    /// Decodes the lengths.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, body @ ..] = bytes;
        Self {
            header_bytes: u32::from_le_bytes([a, b, c, d]),
            body_bytes: u64::from_le_bytes(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_survive_encoding() {
        for (header_bytes, body_bytes) in [(0, 0), (0x0102_0304, 0x0506_0708_090a_0b0c)] {
            let head = MessageHead {
                header_bytes,
                body_bytes,
            };
            assert_eq!(MessageHead::decode(head.encode()), head);
        }
    }
}
