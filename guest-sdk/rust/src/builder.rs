use crate::bits::Bits;
use crate::column::Column;
use crate::schema::Kind;

/// Where values end, and which are there.
#[derive(Clone, Debug)]
struct Ends {
    offsets: Vec<i32>,
    validity: Option<Bits>,
}

impl Default for Ends {
    fn default() -> Ends {
        Ends {
            offsets: vec![0],
            validity: None,
        }
    }
}

impl Ends {
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn push(&mut self, end: usize) {
        self.offsets
            .push(i32::try_from(end).expect("a column holds less than 2 GiB of text or bytes"));
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
    }

    fn push_null(&mut self) {
        let len = self.len();
        self.validity
            .get_or_insert_with(|| Bits::repeat(true, len))
            .push(false);
        self.offsets.push(self.offsets[len]);
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    fn into_column(self, kind: Kind, bytes: Vec<u8>) -> Column {
        let rows = self.len();
        Column {
            validity: self.validity,
            ..Column::flat(kind, rows, vec![self.offsets.into(), bytes.into()])
        }
    }
}

macro_rules! builder {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $buffer:ty, $value:ty, $append:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name {
            ends: Ends,
            bytes: $buffer,
        }

        impl $name {
            /// No rows yet.
            pub fn new() -> $name {
                $name::default()
            }

            /// No rows yet, but room for `rows` of them with `bytes` in all.
            pub fn with_capacity(rows: usize, bytes: usize) -> $name {
                let mut builder = $name::default();
                builder.reserve(rows, bytes);
                builder
            }

            /// Makes room for `rows` more with `bytes` in all.
            pub fn reserve(&mut self, rows: usize, bytes: usize) {
                self.ends.offsets.reserve(rows);
                self.bytes.reserve(bytes);
            }

            /// Appends a value.
            #[inline]
            pub fn push(&mut self, value: &$value) {
                self.bytes.$append(value);
                self.ends.push(self.bytes.len());
            }

            /// Appends a null.
            pub fn push_null(&mut self) {
                self.ends.push_null();
            }

            /// Appends a value, or a null for `None`.
            pub fn push_option(&mut self, value: Option<&$value>) {
                match value {
                    Some(value) => self.push(value),
                    None => self.push_null(),
                }
            }

            /// How many rows there are so far.
            pub fn len(&self) -> usize {
                self.ends.len()
            }

            /// Whether there is no row yet.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many bytes the values take so far.
            pub fn n_bytes(&self) -> usize {
                self.bytes.len()
            }

            /// A value that was appended before; empty for a null. Panics past the end.
            #[inline]
            pub fn value(&self, row: usize) -> &$value {
                self.bytes.get(self.ends.range(row)).expect("offsets between characters")
            }

            /// Forgets all rows, and keeps the memory.
            pub fn clear(&mut self) {
                self.ends.offsets.truncate(1);
                self.ends.validity = None;
                self.bytes.clear();
            }

            /// The rows so far as a column. The builder is empty again.
            pub fn take(&mut self) -> Column {
                std::mem::take(self).into()
            }
        }

        impl From<$name> for Column {
            fn from(builder: $name) -> Column {
                builder.ends.into_column(Kind::$kind, builder.bytes.into())
            }
        }

        impl<'a> FromIterator<&'a $value> for $name {
            fn from_iter<I: IntoIterator<Item = &'a $value>>(values: I) -> $name {
                let mut builder = $name::new();
                values.into_iter().for_each(|value| builder.push(value));
                builder
            }
        }

        impl<'a> FromIterator<Option<&'a $value>> for $name {
            fn from_iter<I: IntoIterator<Item = Option<&'a $value>>>(values: I) -> $name {
                let mut builder = $name::new();
                values.into_iter().for_each(|value| builder.push_option(value));
                builder
            }
        }

        impl<'a> FromIterator<&'a $value> for Column {
            fn from_iter<I: IntoIterator<Item = &'a $value>>(values: I) -> Column {
                values.into_iter().collect::<$name>().into()
            }
        }

        impl<'a> FromIterator<Option<&'a $value>> for Column {
            fn from_iter<I: IntoIterator<Item = Option<&'a $value>>>(values: I) -> Column {
                values.into_iter().collect::<$name>().into()
            }
        }
    };
}

builder! {
    /// Builds a column of [`DataType::Utf8`](crate::DataType::Utf8). All values share one piece of memory, so that a value
    /// costs no allocation; what was appended can be read back, so a builder also serves as a store of strings.
    ///
    /// ```
    /// use weft::prelude::*;
    /// let mut pages = Utf8Builder::new();
    /// pages.push("/index.html");
    /// pages.push_null();
    /// assert_eq!((pages.len(), pages.value(0)), (2, "/index.html"));
    /// let column = pages.take();
    /// assert_eq!((column.rows(), column.nulls()), (2, 1));
    /// ```
    Utf8Builder, Utf8, String, str, push_str
}

builder! {
    /// Builds a column of [`DataType::Binary`](crate::DataType::Binary), like [`Utf8Builder`] without the text.
    BinaryBuilder, Binary, Vec<u8>, [u8], extend_from_slice
}
