use crate::bits::Bits;
use crate::buffer::{Buffer, Native};
use crate::schema::{DataType, Kind};
use crate::{Error, Result};

/// The values of one column, to be put into a [`Batch`](crate::Batch).
///
/// Made of vectors, which are handed over whole, and of builders:
///
/// ```
/// use weft::prelude::*;
/// let hits = Column::from(vec![3i64, 5]);
/// let fares = Column::from(vec![Some(12.5f64), None]);
/// let days = Column::date32(vec![20_000, 20_001]);
/// let tags = Column::array_of(vec![0, 2, 3], Column::from_iter(["a", "b", "c"])).unwrap();
/// assert_eq!((hits.rows(), fares.nulls(), days.rows(), tags.rows()), (2, 1, 2, 2));
/// ```
#[derive(Clone, Debug)]
pub struct Column {
    pub(crate) kind: Kind,
    pub(crate) rows: usize,
    pub(crate) validity: Option<Bits>,
    /// As in the contract, without validity: values or bits; offsets and bytes; offsets; nothing.
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) children: Vec<Column>,
}

/// Numbers that a column can be made of without saying more.
#[doc(hidden)]
#[expect(private_interfaces, reason = "sealed")]
pub trait Number: Native {
    #[doc(hidden)]
    const KIND: Kind;
}

macro_rules! numbers {
    ($($native:ty: $kind:ident,)+) => {$(
        impl Number for $native {
            #[expect(private_interfaces, reason = "sealed")]
            const KIND: Kind = Kind::$kind;
        }
    )+};
}

numbers! {
    i8: Int8, i16: Int16, i32: Int32, i64: Int64, u8: Uint8, u16: Uint16, u32: Uint32, u64: Uint64, f32: Float32, f64: Float64,
}

impl Column {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many of them are null.
    pub fn nulls(&self) -> usize {
        self.validity.as_ref().map_or(0, Bits::zeros)
    }

    /// A column of [`DataType::Boolean`].
    pub fn boolean(bits: Bits) -> Column {
        let rows = bits.len();
        Column::flat(Kind::Boolean, rows, vec![bits.as_bytes().to_vec().into()])
    }

    /// A column of [`DataType::Date32`]: days since 1970-01-01.
    pub fn date32(days: Vec<i32>) -> Column {
        Column::flat(Kind::Date32, days.len(), vec![days.into()])
    }

    /// A column of [`DataType::TimestampUs`]: microseconds since 1970-01-01.
    pub fn timestamp_us(microseconds: Vec<i64>) -> Column {
        Column::flat(
            Kind::TimestampUs,
            microseconds.len(),
            vec![microseconds.into()],
        )
    }

    /// A column of [`DataType::Decimal128`]: the numbers without their point, which the field's scale sets.
    pub fn decimal128(unscaled: Vec<i128>) -> Column {
        Column::flat(Kind::Decimal128, unscaled.len(), vec![unscaled.into()])
    }

    /// A column of [`DataType::ArrayOf`]. Row `i` holds the items from `offsets[i]` up to `offsets[i + 1]`; offsets start
    /// at 0, never fall, and end at the number of items.
    pub fn array_of(offsets: Vec<i32>, items: Column) -> Result<Column> {
        let last = offsets.last().and_then(|last| usize::try_from(*last).ok());
        if offsets.first() != Some(&0) || !offsets.is_sorted() || last != Some(items.rows) {
            return Err(Error::new(format!(
                "offsets of a list must rise from 0 to its `{}` items",
                items.rows
            )));
        }
        let mut column = Column::flat(Kind::ArrayOf, offsets.len() - 1, vec![offsets.into()]);
        column.children.push(items);
        Ok(column)
    }

    /// A column of [`DataType::StructOf`]: its members, equally long, at least one.
    pub fn struct_of(members: Vec<Column>) -> Result<Column> {
        let rows = members
            .first()
            .map(Column::rows)
            .ok_or("a struct needs a member")?;
        if members.iter().any(|member| member.rows != rows) {
            return Err("members of a struct must be equally long".into());
        }
        Ok(Column {
            children: members,
            ..Column::flat(Kind::StructOf, rows, vec![])
        })
    }

    /// `rows` rows of this type that are all null.
    pub fn nulls_of(data_type: &DataType, rows: usize) -> Column {
        let kind = data_type.kind();
        let buffers = match kind {
            Kind::Boolean => vec![vec![0u8; rows.div_ceil(8)].into()],
            Kind::Utf8 | Kind::Binary => vec![vec![0i32; rows + 1].into(), Vec::<u8>::new().into()],
            Kind::ArrayOf => vec![vec![0i32; rows + 1].into()],
            Kind::StructOf => vec![],
            _ => vec![Buffer::values(kind, vec![0; rows * kind.width()])],
        };
        let below = if kind == Kind::ArrayOf { 0 } else { rows };
        let children = data_type
            .children()
            .iter()
            .map(|field| Column::nulls_of(&field.data_type, below))
            .collect();
        let validity = (rows > 0).then(|| Bits::repeat(false, rows));
        Column {
            kind,
            rows,
            validity,
            buffers,
            children,
        }
    }

    /// The same column with nulls where `validity` has no bit. Panics unless there is one bit for each row.
    pub fn with_validity(mut self, validity: Bits) -> Column {
        assert_eq!(validity.len(), self.rows, "one bit a row");
        self.validity = (validity.zeros() > 0).then_some(validity);
        self
    }

    pub(crate) fn flat(kind: Kind, rows: usize, buffers: Vec<Buffer>) -> Column {
        Column {
            kind,
            rows,
            validity: None,
            buffers,
            children: vec![],
        }
    }

    /// Whether the values, and all below them, lie as the type says.
    pub(crate) fn is_of(&self, data_type: &DataType) -> bool {
        let fields = data_type.children();
        self.kind == data_type.kind()
            && self.children.len() == fields.len()
            && self
                .children
                .iter()
                .zip(fields)
                .all(|(child, field)| child.is_of(&field.data_type))
    }
}

impl<T: Number> From<Vec<T>> for Column {
    fn from(values: Vec<T>) -> Column {
        Column::flat(T::KIND, values.len(), vec![values.into()])
    }
}

impl<T: Number> From<Vec<Option<T>>> for Column {
    fn from(values: Vec<Option<T>>) -> Column {
        let validity = values.iter().map(Option::is_some).collect();
        let values: Vec<T> = values.into_iter().map(Option::unwrap_or_default).collect();
        Column::from(values).with_validity(validity)
    }
}

impl From<Vec<bool>> for Column {
    fn from(values: Vec<bool>) -> Column {
        Column::boolean(values.into_iter().collect())
    }
}

impl<T: Number> FromIterator<T> for Column {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Column {
        Column::from(values.into_iter().collect::<Vec<T>>())
    }
}
