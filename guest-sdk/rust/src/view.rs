//! Reading columns: a [`View`] is some rows of a column, and gives typed values where the type fits.

use std::ops::Range;

use crate::bits::Bits;
use crate::buffer::Native;
use crate::column::Column;
use crate::schema::{DataType, Field, Kind};
use crate::{Error, Result};

/// Some rows of one column: of a batch, of a group, or of a part of a nested column.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    field: &'a Field,
    column: &'a Column,
    start: usize,
    rows: usize,
}

macro_rules! views {
    ($($method:ident $view:ty, $pattern:pat, $make:ident, $data_type:literal;)+) => {
        impl<'a> View<'a> {$(
            #[doc = concat!("The values of a column of type ", $data_type, "; an error for another type.")]
            pub fn $method(self) -> Result<$view> {
                match &self.field.data_type {
                    $pattern => Ok(self.$make()),
                    _ => Err(self.is_not($data_type)),
                }
            }
        )+}

        /// Whatever has columns by name: a [`Batch`](crate::Batch), or the [`Rows`](crate::Rows) of a group.
        ///
        /// Asking for a column finds it by name and checks its type: do it once for each call of a function, not for each
        /// row. A column enters the sandbox the first time that it is asked for.
        pub trait Columns {
            /// The column of this name, whatever its type.
            fn column(&self, name: &str) -> Result<View<'_>>;

            $(
                #[doc = concat!("The column of this name, which must be of type ", $data_type, ".")]
                fn $method<'a>(&'a self, name: &str) -> Result<$view> {
                    self.column(name)?.$method()
                }
            )+
        }
    };
}

views! {
    boolean Booleans<'a>, DataType::Boolean, booleans, "`boolean`";
    i8 Values<'a, i8>, DataType::Int8, values, "`int8`";
    i16 Values<'a, i16>, DataType::Int16, values, "`int16`";
    i32 Values<'a, i32>, DataType::Int32, values, "`int32`";
    i64 Values<'a, i64>, DataType::Int64, values, "`int64`";
    u8 Values<'a, u8>, DataType::Uint8, values, "`uint8`";
    u16 Values<'a, u16>, DataType::Uint16, values, "`uint16`";
    u32 Values<'a, u32>, DataType::Uint32, values, "`uint32`";
    u64 Values<'a, u64>, DataType::Uint64, values, "`uint64`";
    f32 Values<'a, f32>, DataType::Float32, values, "`float32`";
    f64 Values<'a, f64>, DataType::Float64, values, "`float64`";
    date32 Values<'a, i32>, DataType::Date32, values, "`date32`";
    timestamp_us Values<'a, i64>, DataType::TimestampUs, values, "`timestamp-us`";
    decimal128 Values<'a, i128>, DataType::Decimal128 { .. }, values, "`decimal128`";
    utf8 Texts<'a>, DataType::Utf8, texts, "`utf8`";
    binary Binaries<'a>, DataType::Binary | DataType::Utf8, binaries, "`binary` or `utf8`";
    array_of Lists<'a>, DataType::ArrayOf(_), lists, "`array-of`";
}

impl<'a> View<'a> {
    pub(crate) fn new(field: &'a Field, column: &'a Column, rows: Range<usize>) -> View<'a> {
        assert!(
            rows.start <= rows.end && rows.end <= column.rows,
            "rows of the column"
        );
        View {
            field,
            column,
            start: rows.start,
            rows: rows.len(),
        }
    }

    /// Name, type and nullability.
    pub fn field(&self) -> &'a Field {
        self.field
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether this row is null.
    pub fn is_null(&self, row: usize) -> bool {
        self.validity().is_null(row)
    }

    /// The member of a struct of this name. A row that is null in the struct may hold any value in its members.
    pub fn member(self, name: &str) -> Result<View<'a>> {
        let members = self
            .field
            .data_type
            .children()
            .iter()
            .zip(&self.column.children);
        match members
            .into_iter()
            .find(|(field, _)| self.column.kind == Kind::StructOf && field.name == name)
        {
            Some((field, column)) => Ok(View {
                field,
                column,
                ..self
            }),
            None => Err(Error::new(format!(
                "column `{}` has no member `{name}`",
                self.field.name
            ))),
        }
    }

    fn is_not(&self, data_type: &str) -> Error {
        let Field {
            name,
            data_type: found,
            ..
        } = self.field;
        Error::new(format!(
            "column `{name}` is of type `{found}`, not {data_type}"
        ))
    }

    fn validity(&self) -> Validity<'a> {
        Validity {
            bits: self.column.validity.as_ref(),
            start: self.start,
        }
    }

    fn offsets(&self) -> &'a [i32] {
        &self.column.buffers[0].as_slice()[self.start..=self.start + self.rows]
    }

    fn values<T: Native>(self) -> Values<'a, T> {
        let values = &self.column.buffers[0].as_slice()[self.start..self.start + self.rows];
        Values {
            name: &self.field.name,
            values,
            validity: self.validity(),
        }
    }

    fn booleans(self) -> Booleans<'a> {
        Booleans {
            bits: self.column.buffers[0].as_bytes(),
            start: self.start,
            len: self.rows,
            validity: self.validity(),
        }
    }

    fn binaries(self) -> Binaries<'a> {
        Binaries {
            offsets: self.offsets(),
            bytes: self.column.buffers[1].as_bytes(),
            validity: self.validity(),
        }
    }

    fn texts(self) -> Texts<'a> {
        let Binaries {
            offsets,
            bytes,
            validity,
        } = self.binaries();
        // SAFETY: a column of kind `Utf8` comes from a builder of strings, or from the host, which lets only valid UTF-8
        // become a batch. Where values begin and end inside it is checked each time.
        #[expect(unsafe_code, reason = "checked by the host already, and text is long")]
        let text = unsafe { std::str::from_utf8_unchecked(bytes) };
        Texts {
            offsets,
            text,
            validity,
        }
    }

    fn lists(self) -> Lists<'a> {
        Lists {
            view: self,
            offsets: self.offsets(),
        }
    }
}

/// Which rows of a view are not null.
#[derive(Clone, Copy, Debug)]
struct Validity<'a> {
    bits: Option<&'a Bits>,
    start: usize,
}

impl Validity<'_> {
    #[inline]
    fn is_null(self, row: usize) -> bool {
        self.bits.is_some_and(|bits| !bits.get(self.start + row))
    }
}

macro_rules! nullable {
    ($view:ident $(<$native:ident>)?, $item:ty) => {
        impl<'a $(, $native: Native)?> $view<'a $(, $native)?> {
            /// Whether there is no row.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether this row is null.
            #[inline]
            pub fn is_null(&self, row: usize) -> bool {
                self.validity.is_null(row)
            }

            /// The value of this row, `None` if it is null. Panics past the end.
            #[inline]
            pub fn get(&self, row: usize) -> Option<$item> {
                if self.is_null(row) { None } else { Some(self.value(row)) }
            }

            /// All rows in order, `None` for nulls.
            pub fn iter(self) -> impl ExactSizeIterator<Item = Option<$item>> + 'a {
                (0..self.len()).map(move |row| self.get(row))
            }
        }
    };
}

/// Numbers, also those that stand for dates, times and decimals.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a, T> {
    name: &'a str,
    values: &'a [T],
    validity: Validity<'a>,
}

impl<'a, T: Native> Values<'a, T> {
    /// All numbers as a slice. Fails where a row is null, because a slice cannot tell: `iter` can.
    pub fn as_slice(&self) -> Result<&'a [T]> {
        match self.first_null() {
            None => Ok(self.values),
            Some(row) => Err(Error::new(format!(
                "row {row} of column `{}` is null, which a slice of numbers cannot show: use `iter`",
                self.name
            ))),
        }
    }

    fn first_null(&self) -> Option<usize> {
        self.validity.bits?;
        (0..self.len()).find(|row| self.is_null(*row))
    }

    /// All numbers as a slice. Where a row is null, the number means nothing.
    pub fn as_slice_with_nulls(&self) -> &'a [T] {
        self.values
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The number of this row, whether or not it is null. Panics past the end.
    #[inline]
    pub fn value(&self, row: usize) -> T {
        self.values[row]
    }
}

nullable!(Values<T>, T);

/// Truth values.
#[derive(Clone, Copy, Debug)]
pub struct Booleans<'a> {
    bits: &'a [u8],
    start: usize,
    len: usize,
    validity: Validity<'a>,
}

impl Booleans<'_> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of this row, whether or not it is null. Panics past the end.
    #[inline]
    pub fn value(&self, row: usize) -> bool {
        assert!(row < self.len, "row {row} of {}", self.len);
        let bit = self.start + row;
        self.bits[bit / 8] >> (bit % 8) & 1 == 1
    }
}

nullable!(Booleans, bool);

/// Strings.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    offsets: &'a [i32],
    text: &'a str,
    validity: Validity<'a>,
}

impl<'a> Texts<'a> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The string of this row; where it is null, the string means nothing. Panics past the end.
    #[inline]
    pub fn value(&self, row: usize) -> &'a str {
        let range = self.offsets[row] as usize..self.offsets[row + 1] as usize;
        self.text.get(range).expect("offsets between characters")
    }
}

nullable!(Texts, &'a str);

/// Byte strings.
#[derive(Clone, Copy, Debug)]
pub struct Binaries<'a> {
    offsets: &'a [i32],
    bytes: &'a [u8],
    validity: Validity<'a>,
}

impl<'a> Binaries<'a> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// How many bytes all rows have together.
    pub fn n_bytes(&self) -> usize {
        (self.offsets[self.len()] - self.offsets[0]) as usize
    }

    /// The bytes of all rows, one after the other, and where each begins and ends in them: row `i` has those from
    /// `offsets[i]` up to `offsets[i + 1]`, which mean nothing where it is null. Other bytes may come before and after them.
    pub fn as_slices(&self) -> (&'a [u8], &'a [i32]) {
        (self.bytes, self.offsets)
    }

    /// The bytes of this row; where it is null, they mean nothing. Panics past the end.
    #[inline]
    pub fn value(&self, row: usize) -> &'a [u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

nullable!(Binaries, &'a [u8]);

/// Lists.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    view: View<'a>,
    offsets: &'a [i32],
}

impl<'a> Lists<'a> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.view.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.view.rows == 0
    }

    /// Whether this row is null.
    pub fn is_null(&self, row: usize) -> bool {
        self.view.is_null(row)
    }

    /// The items of all rows, one list after the other.
    pub fn items(&self) -> View<'a> {
        self.between(self.offsets[0], self.offsets[self.len()])
    }

    /// The items of this row; where it is null, they mean nothing. Panics past the end.
    pub fn value(&self, row: usize) -> View<'a> {
        self.between(self.offsets[row], self.offsets[row + 1])
    }

    fn between(&self, start: i32, end: i32) -> View<'a> {
        View::new(
            &self.view.field.data_type.children()[0],
            &self.view.column.children[0],
            start as usize..end as usize,
        )
    }
}
