//! Job specifications: what a job document says once it has been checked.
//!
//! [`decode`] takes the JSON form (the CLI turns TOML into it) and answers with a [`JobSpec`] or with everything that is
//! wrong. What comes out is consistent: names are unique, every `from` exists, stages form a graph without cycles.

mod decode;
mod decode_files;
mod decode_stages;
mod decode_tasks;
mod document;
mod expand;
mod sql_command;
mod sql_functions;
mod sql_statements;
mod stage;
mod task_input;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use decode::decode;
pub use document::nearest;
pub use expand::expand;
pub use sql_command::is_sql_command;
pub use sql_functions::{MAX_SQL_FUNCTIONS, function_name, sql_functions};
pub use sql_statements::{SqlStatement, sql_statements};
pub use stage::{EachInput, StageSpec, Work};
pub use task_input::{MAX_TASK_INPUT_BYTES, input_member};

use crate::limits::Limits;

/// Most stages in a job.
pub const STAGES_MAX: usize = 64;
/// Most tasks in a task set, and most partitions of a shuffle.
pub const TASKS_MAX: u32 = 100_000;
/// Inputs of a job.
pub const INPUTS_MAX: usize = 256;
/// Outputs of a job, dead letters included.
pub const OUTPUTS_MAX: usize = 256;
/// Most partitions of a shuffle, and of a SQL stage.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Bytes of one output that the cluster keeps, unless its controllers have another bound.
pub const MAX_KEPT_BYTES: u64 = 1 << 30;
/// Most rows of a batch that one task gets.
pub const MAX_EACH_ROWS: u32 = 65_536;
/// Bytes of a SQL stage's statement.
pub const MAX_SQL_BYTES: usize = 256 << 10;

/// Spaces that do not belong to the name of a column.
const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];
/// Levels of brackets in the type of a column.
pub const MAX_COLUMN_DEPTH: usize = 16;
/// Members of one struct in the type of a column.
pub const MAX_STRUCT_MEMBERS: usize = 4_096;

/// A checked job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// For people.
    pub name: String,
    /// Seeds the randomness of guests.
    #[serde(default)]
    pub seed: u64,
    /// Free labels that usage is summed by.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Given to every function's `bind` and `open`.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Limits of every task.
    #[serde(default)]
    pub limits: Limits,
    /// What is read.
    pub inputs: Vec<InputSpec>,
    /// What is done, in the order of the document.
    pub stages: Vec<StageSpec>,
    /// What is written.
    pub outputs: Vec<OutputSpec>,
}

/// A set of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Unique among inputs and stages.
    pub name: String,
    /// How the files are read.
    pub format: InputFormat,
    /// Globs: absolute paths, or locations in stores, `s3://bucket/key`.
    pub uris: Vec<String>,
    /// What happens to records that cannot be read.
    pub bad_records: BadRecords,
}

/// What a column is compared with, `column operator value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The column.
    pub column: String,
    /// How they compare.
    pub operator: Operator,
    /// The value, as text; it is read in the type of the column.
    pub value: String,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Operator {
    const ALL: [(&str, Operator); 6] = [
        ("=", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">", Operator::Greater),
        (">=", Operator::GreaterOrEqual),
    ];
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(_, one)| one == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

impl FromStr for Comparison {
    type Err = ();

    /// The operator stands between spaces; the first one counts, so that values may hold others.
    fn from_str(text: &str) -> Result<Self, ()> {
        let place = |(name, operator): (&str, Operator)| {
            let at = text.find(&format!(" {name} "))?;
            Some((at, name.len() + 2, operator))
        };
        let found = Operator::ALL.into_iter().filter_map(place);
        let (at, length, operator) = found.min_by_key(|(at, ..)| *at).ok_or(())?;
        let (column, value) = (text[..at].trim(), text[at + length..].trim());
        if column.is_empty() || value.is_empty() {
            return Err(());
        }
        Ok(Self {
            column: column.to_owned(),
            operator,
            value: unquoted(value),
        })
    }
}

/// A value without the quotes that SQL puts around texts, in which two stand for one.
fn unquoted(value: &str) -> String {
    let inner = value
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''));
    match inner {
        Some(inner) => inner.replace("''", "'"),
        None => value.to_owned(),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.column, self.operator, self.value)
    }
}

/// Formats of inputs. Text formats are decompressed where the file's name ends in `.gz` or `.zst`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// One column, `line`.
    Text {
        /// Checks that each line is UTF-8 and types the column `utf8` rather than `binary`.
        utf8: bool,
    },
    /// Comma-separated values.
    Csv(CsvFormat),
    /// One JSON object a line.
    Json {
        /// The columns; inferred from the first records of all files where there are none.
        columns: Vec<ColumnSpec>,
        /// Treatment of keys that no column has.
        #[serde(default)]
        unknown_fields: UnknownFields,
    },
    /// Parquet.
    Parquet {
        /// The columns to read; all where there are none.
        columns: Vec<String>,
        /// What all rows that are read fulfil.
        #[serde(default)]
        filter: Vec<Comparison>,
    },
    /// Arrow IPC, file or stream.
    Arrow {
        /// The columns to read; all where there are none.
        columns: Vec<String>,
    },
}

/// How CSV files are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsvFormat {
    /// Each file begins with the names of its columns.
    pub header: bool,
    /// One byte.
    pub delimiter: u8,
    /// One byte, or nothing where values are never quoted.
    pub quote: Option<u8>,
    /// The columns to read: by name where there is a header, else all of them in order. Inferred from the first file where
    /// there are none.
    pub columns: Vec<ColumnSpec>,
}

/// A column and its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: ColumnType,
}

/// Types of columns, by their names in the WIT contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ColumnType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    Utf8,
    Date32,
    TimestampUs,
    Decimal128 { precision: u8, scale: i8 },
    List(Box<ColumnType>),
    Struct(Vec<ColumnSpec>),
}

impl ColumnType {
    /// Names of the types, as job files write them.
    pub const NAMES: [&str; 17] = [
        "boolean",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
        "utf8",
        "date32",
        "timestamp-us",
        "decimal128(PRECISION, SCALE)",
        "list(TYPE)",
        "struct(NAME TYPE, ..)",
    ];

    /// Parses the name of a type.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_within(text, MAX_COLUMN_DEPTH)
    }

    fn parse_within(text: &str, depth: usize) -> Option<Self> {
        Some(match text {
            "boolean" => Self::Boolean,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint8" => Self::Uint8,
            "uint16" => Self::Uint16,
            "uint32" => Self::Uint32,
            "uint64" => Self::Uint64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "utf8" => Self::Utf8,
            "date32" => Self::Date32,
            "timestamp-us" => Self::TimestampUs,
            composed => {
                let (name, arguments) = composed.strip_suffix(')')?.split_once('(')?;
                let inner = depth.checked_sub(1);
                match name.trim_end() {
                    "decimal128" => Self::decimal(arguments)?,
                    "list" => Self::List(Box::new(Self::parse_within(arguments.trim(), inner?)?)),
                    "struct" => Self::members(arguments, inner?)?,
                    _ => return None,
                }
            }
        })
    }

    fn decimal(arguments: &str) -> Option<Self> {
        let (precision, scale) = arguments.split_once(',')?;
        let precision: u8 = precision.trim().parse().ok()?;
        let scale: i8 = scale.trim().parse().ok()?;
        let fits = (1..=38).contains(&precision) && (0..=precision.cast_signed()).contains(&scale);
        fits.then_some(Self::Decimal128 { precision, scale })
    }

    fn members(arguments: &str, depth: usize) -> Option<Self> {
        let mut members: Vec<ColumnSpec> = Vec::new();
        let parts = split_outside(arguments, ',');
        if parts.len() > MAX_STRUCT_MEMBERS {
            return None;
        }
        for member in parts {
            let member = ColumnSpec::parse_within(member, depth)?;
            if members.iter().any(|other| other.name == member.name) {
                return None;
            }
            members.push(member);
        }
        Some(Self::Struct(members))
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal128 { precision, scale } => write!(f, "decimal128({precision}, {scale})"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Struct(members) => {
                f.write_str("struct(")?;
                for (position, member) in members.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{} {}", member.name, member.data_type)?;
                }
                f.write_str(")")
            }
            Self::TimestampUs => f.write_str("timestamp-us"),
            plain => f.write_str(&format!("{plain:?}").to_lowercase()),
        }
    }
}

impl ColumnSpec {
    /// Parses `name type`. A name may hold spaces, a type only within its brackets.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_within(text, MAX_COLUMN_DEPTH)
    }

    fn parse_within(text: &str, depth: usize) -> Option<Self> {
        // A name may end in a space that is none of ASCII's.
        let text = text.trim_matches(SPACES);
        let type_bytes = split_outside(text, ' ').last()?.len();
        let mut cut = text.len() - type_bytes;
        // `list (utf8)` is one type, too.
        if text[cut..].starts_with('(') {
            let before = text[..cut].trim_end();
            cut = before.rfind(' ').map_or(0, |space| space + 1);
        }
        let (name, data_type) = text.split_at(cut);
        let data_type = ColumnType::parse_within(data_type.trim(), depth)?;
        let name = name.trim_matches(SPACES).to_owned();
        (!name.is_empty()).then_some(Self { name, data_type })
    }
}

/// The parts of a text between separators that stand outside of brackets.
fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            found if found == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Treatment of keys of JSON records that no column has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFields {
    /// They are passed over and counted.
    #[default]
    Ignore,
    /// The record is bad.
    Fail,
    /// Those of the record itself become one JSON object in the text column [`REST_COLUMN`]; those
    /// of nested objects are passed over and counted.
    Rest,
}

/// The column of keys that no other column has.
pub const REST_COLUMN: &str = "rest";

/// What happens to a record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRecords {
    /// The job fails and names file and position.
    Fail,
    /// The record is left out and counted.
    Skip,
    /// The record is left out, counted, and written with its reason to an output of this name.
    DeadLetter {
        /// The output, which the job has beside those of its document.
        output: String,
    },
}

/// Files that a stage's rows go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Free, unique among outputs.
    pub name: String,
    /// The stage; for dead letters the input.
    pub from: String,
    /// How the files are written.
    pub format: OutputFormat,
    /// Folder of the files.
    #[serde(flatten)]
    pub to: Destination,
    /// Columns whose values name folders (`column=value`) and are left out of the files.
    pub partition_by: Vec<String>,
    /// What happens when the folder holds files.
    pub mode: OutputMode,
}

/// Folder that the files of an output go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Destination {
    /// A folder of the user's.
    Folder {
        /// The folder: an absolute path, or a location of an object store such as `s3://bucket/out/`.
        path: String,
    },
    /// A folder in the cluster's store, which no path names: each process resolves it in the store that it has.
    Kept {
        /// Most bytes of the files.
        max_kept_bytes: u64,
    },
}

impl OutputSpec {
    /// Path or location of the user's folder. Nothing for an output that the cluster keeps.
    pub fn path(&self) -> Option<&str> {
        match &self.to {
            Destination::Folder { path } => Some(path),
            Destination::Kept { .. } => None,
        }
    }

    /// Most bytes of an output that the cluster keeps. Nothing for one with a folder of the user's.
    pub fn max_kept_bytes(&self) -> Option<u64> {
        match self.to {
            Destination::Folder { .. } => None,
            Destination::Kept { max_kept_bytes } => Some(max_kept_bytes),
        }
    }
}

/// Formats of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// Parquet, Snappy-compressed.
    Parquet,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Json,
    /// Arrow IPC files.
    Arrow,
}

impl OutputFormat {
    /// Its name in job files and manifests, and the extension of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
        }
    }
}

/// What happens when the output folder already holds files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// The job is refused.
    Error,
    /// New files take the place of those that the manifest lists.
    Overwrite,
    /// New files join those that the manifest lists.
    Append,
}

impl JobSpec {
    /// The params that a stage's functions get: the job's, overlaid with the stage's own.
    pub fn params_of(&self, stage: &StageSpec) -> Vec<(String, String)> {
        let mut params = self.params.clone();
        params.extend(stage.params.clone());
        params.into_iter().collect()
    }

    /// Bounds the bytes of each output that the cluster keeps.
    pub fn bound_kept(&mut self, max_bytes: u64) {
        for output in &mut self.outputs {
            if let Destination::Kept { max_kept_bytes } = &mut output.to {
                *max_kept_bytes = max_bytes;
            }
        }
    }

    /// Whether an output takes what an input's `bad_records` leaves out.
    pub fn is_dead_letters(&self, output: &OutputSpec) -> bool {
        self.inputs.iter().any(|input| {
            matches!(&input.bad_records, BadRecords::DeadLetter { output: name } if *name == output.name)
        })
    }

    /// Every function that the job names, without repeats, in the order of the document.
    pub fn functions(&self) -> Vec<&str> {
        let mut functions = Vec::new();
        for function in self.stages.iter().flat_map(|stage| stage.work.functions()) {
            if !functions.contains(&function) {
                functions.push(function);
            }
        }
        functions
    }
}

/// A function's reference, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionRef {
    /// The component.
    pub component: String,
    /// Its version; the newest one where none is given.
    pub version: Option<String>,
    /// The function.
    pub function: String,
}

impl FunctionRef {
    /// Parses `component/function` and `component@version/function`.
    pub fn parse(text: &str) -> Option<Self> {
        let (component, function) = text.split_once('/')?;
        let (component, version) = component
            .split_once('@')
            .map_or((component, None), |(name, version)| (name, Some(version)));
        let version_fits = version.is_none_or(crate::is_semver);
        let fits = crate::is_component_name(component)
            && version_fits
            && crate::is_component_name(function);
        fits.then(|| Self {
            component: component.into(),
            version: version.map(Into::into),
            function: function.into(),
        })
    }
}
