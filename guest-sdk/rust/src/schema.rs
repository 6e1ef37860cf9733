use crate::{Error, Result};

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names say it; they are those of the WIT contract"
)]
pub enum DataType {
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
    Binary,
    /// Days since 1970-01-01, as `i32`.
    Date32,
    /// Microseconds since 1970-01-01 00:00:00, as `i64`.
    TimestampUs,
    /// `precision` decimal digits, `scale` of them after the point, as `i128`.
    Decimal128 {
        precision: u8,
        scale: i8,
    },
    /// A list of the field's values in each row.
    ArrayOf(Box<Field>),
    /// The fields side by side in each row.
    StructOf(Vec<Field>),
}

/// A [`DataType`] without what belongs to the field: how values lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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
    Binary,
    Date32,
    TimestampUs,
    Decimal128,
    ArrayOf,
    StructOf,
}

impl Kind {
    /// The name in the contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Int8 => "int8",
            Kind::Int16 => "int16",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Uint8 => "uint8",
            Kind::Uint16 => "uint16",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::Float32 => "float32",
            Kind::Float64 => "float64",
            Kind::Utf8 => "utf8",
            Kind::Binary => "binary",
            Kind::Date32 => "date32",
            Kind::TimestampUs => "timestamp-us",
            Kind::Decimal128 => "decimal128",
            Kind::ArrayOf => "array-of",
            Kind::StructOf => "struct-of",
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind().name())?;
        match self {
            DataType::Decimal128 { precision, scale } => write!(f, "({precision}, {scale})"),
            _ => Ok(()),
        }
    }
}

impl DataType {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 => Kind::Int8,
            DataType::Int16 => Kind::Int16,
            DataType::Int32 => Kind::Int32,
            DataType::Int64 => Kind::Int64,
            DataType::Uint8 => Kind::Uint8,
            DataType::Uint16 => Kind::Uint16,
            DataType::Uint32 => Kind::Uint32,
            DataType::Uint64 => Kind::Uint64,
            DataType::Float32 => Kind::Float32,
            DataType::Float64 => Kind::Float64,
            DataType::Utf8 => Kind::Utf8,
            DataType::Binary => Kind::Binary,
            DataType::Date32 => Kind::Date32,
            DataType::TimestampUs => Kind::TimestampUs,
            DataType::Decimal128 { .. } => Kind::Decimal128,
            DataType::ArrayOf(_) => Kind::ArrayOf,
            DataType::StructOf(_) => Kind::StructOf,
        }
    }

    /// The fields below this type: one for a list, the members of a struct.
    pub fn children(&self) -> &[Field] {
        match self {
            DataType::ArrayOf(item) => std::slice::from_ref(item),
            DataType::StructOf(members) => members,
            _ => &[],
        }
    }
}

/// A named column of a [`Schema`], or a part of a nested one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The column's name.
    pub name: String,
    /// The type of its values.
    pub data_type: DataType,
    /// Whether values may be missing.
    pub nullable: bool,
}

impl Field {
    /// A field whose values are never null.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Field {
        Field {
            name: name.into(),
            data_type,
            nullable: false,
        }
    }

    /// A field whose values may be null.
    pub fn nullable(name: impl Into<String>, data_type: DataType) -> Field {
        Field {
            name: name.into(),
            data_type,
            nullable: true,
        }
    }
}

/// The columns of a batch: names, types, and which may be null.
///
/// ```
/// use weft::prelude::*;
/// let visits = Schema::new().utf8("day").utf8("page").nullable().i64("hits");
/// assert!(visits.field("page").unwrap().nullable && !visits.field("hits").unwrap().nullable);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    fields: Vec<Field>,
}

macro_rules! fields {
    ($($method:ident $data_type:ident,)+) => {$(
        #[doc = concat!("Adds a column of type [`DataType::", stringify!($data_type), "`] without nulls.")]
        pub fn $method(self, name: &str) -> Schema {
            self.with(Field::new(name, DataType::$data_type))
        }
    )+};
}

impl Schema {
    /// No columns yet.
    pub fn new() -> Schema {
        Schema::default()
    }

    fields! {
        boolean Boolean, i8 Int8, i16 Int16, i32 Int32, i64 Int64, u8 Uint8, u16 Uint16, u32 Uint32, u64 Uint64,
        f32 Float32, f64 Float64, utf8 Utf8, binary Binary, date32 Date32, timestamp_us TimestampUs,
    }

    /// Adds a decimal column without nulls.
    pub fn decimal128(self, name: &str, precision: u8, scale: i8) -> Schema {
        self.with(Field::new(name, DataType::Decimal128 { precision, scale }))
    }

    /// Adds a column of any type.
    pub fn with(mut self, field: Field) -> Schema {
        self.fields.push(field);
        self
    }

    /// Lets the column that was added last hold nulls.
    pub fn nullable(mut self) -> Schema {
        if let Some(field) = self.fields.last_mut() {
            field.nullable = true;
        }
        self
    }

    /// The columns in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The column of this name, or an error that names the columns there are.
    pub fn field(&self, name: &str) -> Result<&Field> {
        Ok(&self.fields[self.index_of(name)?])
    }

    /// The position of the column of this name.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        self.fields
            .iter()
            .position(|field| field.name == name)
            .ok_or_else(|| self.missing(name))
    }

    /// Fails unless there is a column of this name and type. For use in `bind`, so that a job with the wrong input is
    /// refused before it starts.
    pub fn require(&self, name: &str, data_type: DataType) -> Result<()> {
        let found = &self.field(name)?.data_type;
        if *found == data_type {
            return Ok(());
        }
        Err(Error::new(format!(
            "column `{name}` is of type `{found}`, not `{data_type}`"
        )))
    }

    /// The named columns only, in this order.
    pub fn select(&self, names: &[&str]) -> Result<Schema> {
        let fields = names
            .iter()
            .map(|name| self.field(name).cloned())
            .collect::<Result<_>>()?;
        Ok(Schema { fields })
    }

    fn missing(&self, name: &str) -> Error {
        let names: Vec<_> = self
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        Error::new(format!("no column `{name}` among `{}`", names.join("`, `")))
    }
}

impl From<Vec<Field>> for Schema {
    fn from(fields: Vec<Field>) -> Schema {
        Schema { fields }
    }
}
