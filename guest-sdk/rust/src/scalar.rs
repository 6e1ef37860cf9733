//! Scalar functions of SQL: plain functions of values that become functions of columns.

use crate::batch::Batch;
use crate::bits::Bits;
use crate::builder::{BinaryBuilder, Utf8Builder};
use crate::column::{Column, Number};
use crate::schema::{DataType, Field, Schema};
use crate::view::{Binaries, Booleans, Texts, Values, View};
use crate::{Error, Result};

/// A scalar function of SQL, which statements call as `component.function(..)`: one column out, with a row for each row
/// in. A value of the type lives for one task.
///
/// [`scalar!`](crate::scalar) makes one of a plain function of values. Implement the trait where the types depend on
/// those of the arguments, where something is to be prepared once for a task, or where whole columns are faster.
///
/// ```
/// use weft::prelude::*;
///
/// /// The length of a text, or of a list.
/// struct Length;
///
/// impl Scalar for Length {
///     fn bind(arguments: &Schema) -> Result<Signature> {
///         let [argument] = arguments.fields() else {
///             return Err("takes one argument".into());
///         };
///         match argument.data_type {
///             DataType::Utf8 | DataType::ArrayOf(_) => {}
///             _ => return Err("takes a text or a list".into()),
///         }
///         Ok(Signature::new([argument.data_type.clone()], DataType::Int64))
///     }
///
///     fn open() -> Result<Length> {
///         Ok(Length)
///     }
///
///     fn evaluate(&mut self, arguments: &Batch) -> Result<Column> {
///         let argument = arguments.column("arg0")?;
///         let length = |row: usize| -> Result<Option<i64>> {
///             Ok(match argument.is_null(row) {
///                 true => None,
///                 false => Some(match argument.utf8() {
///                     Ok(texts) => texts.value(row).len() as i64,
///                     Err(_) => argument.array_of()?.value(row).len() as i64,
///                 }),
///             })
///         };
///         let lengths: Vec<Option<i64>> = (0..arguments.rows()).map(length).collect::<Result<_>>()?;
///         Ok(lengths.into())
///     }
/// }
///
/// let words = Column::from_iter([Some("one"), None]);
/// assert_eq!(weft::testing::run_scalar::<Length>([(DataType::Utf8, words)]).unwrap(), ["3", "null"]);
/// ```
pub trait Scalar: Sized {
    /// The types of the arguments and of the result, given the arguments of a statement: columns `arg0`, `arg1` and so
    /// on. Called when a statement is planned; an error refuses it.
    fn bind(arguments: &Schema) -> Result<Signature>;

    /// Starts a task.
    fn open() -> Result<Self>;

    /// Computes the results of all rows. The arguments have the types that `bind` answered with, and may be null.
    fn evaluate(&mut self, arguments: &Batch) -> Result<Column>;
}

/// Types of a [`Scalar`] function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signature {
    /// Types of the arguments, one for each that is given. The host widens numbers to them, and refuses other
    /// arguments.
    pub arguments: Vec<DataType>,
    /// Type of the result.
    pub returns: DataType,
    /// Whether results may be null.
    pub nullable: bool,
}

impl Signature {
    /// A function of these arguments, whose results may be null.
    pub fn new(arguments: impl Into<Vec<DataType>>, returns: DataType) -> Signature {
        Signature {
            arguments: arguments.into(),
            returns,
            nullable: true,
        }
    }

    /// The same function, whose results are never null.
    pub fn not_null(self) -> Signature {
        Signature {
            nullable: false,
            ..self
        }
    }

    /// The column that is returned.
    pub(crate) fn field(&self) -> Field {
        Field {
            name: "returns".into(),
            data_type: self.returns.clone(),
            nullable: self.nullable,
        }
    }
}

/// Makes a [`Scalar`] function of a plain one, with the same name.
///
/// Arguments are numbers, `bool`, `&str` and `&[u8]`; the result is one of these, `String` or `Vec<u8>`. If an argument
/// is null the result is null, without a call, unless the argument is an `Option`. A result that is an `Option` may be
/// null; an error of one that is a [`Result`](crate::Result) fails the query.
///
/// ```
/// use weft::prelude::*;
///
/// weft::scalar! {
///     fn area(width: f64, height: f64) -> f64 {
///         width * height
///     }
/// }
///
/// weft::scalar! {
///     fn initial(name: Option<&str>) -> Result<Option<String>> {
///         match name {
///             Some("") => Err("nobody has no name".into()),
///             name => Ok(name.and_then(|name| name.chars().next()).map(String::from)),
///         }
///     }
/// }
///
/// weft::component! {
///     /// The area of a rectangle.
///     scalar "area" = area;
///     /// The first letter of a name.
///     scalar "initial" = initial;
/// }
///
/// # fn main() {
/// assert_eq!(area(2.0, 3.0), 6.0);
/// let widths = Column::from(vec![Some(2.0f64), None]);
/// let heights = Column::from(vec![3.0f64, 4.0]);
/// let run = weft::testing::run_scalar::<area>([(DataType::Float64, widths), (DataType::Float64, heights)]);
/// assert_eq!(run.unwrap(), ["6", "null"]);
/// # }
/// ```
#[macro_export]
macro_rules! scalar {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $returns:ty $body:block) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) -> $returns $body

        #[doc(hidden)]
        #[allow(non_camel_case_types, dead_code, reason = "it has the name of the function, and stands for it")]
        $visibility struct $name {}

        impl $crate::Scalar for $name {
            fn bind(arguments: &$crate::Schema) -> $crate::Result<$crate::Signature> {
                let takes = [$($crate::__scalar::takes::<$type>()),*];
                $crate::__scalar::bind::<$returns>(arguments, &takes)
            }

            fn open() -> $crate::Result<Self> {
                ::core::result::Result::Ok($name {})
            }

            #[allow(unused_mut, unused_variables, reason = "a function may have no arguments")]
            fn evaluate(&mut self, arguments: &$crate::Batch) -> $crate::Result<$crate::Column> {
                let mut next = $crate::__scalar::Arguments::of(arguments);
                $(let $argument = next.column::<$type>()?;)*
                $crate::__scalar::collect(arguments.rows(), |row| {
                    $(let $argument = <$type as $crate::Argument<'_>>::get(&$argument, row)?;)*
                    ::core::option::Option::Some($name($($argument),*))
                })
            }
        }
    };
}

/// A type of an argument of a function in [`scalar!`](crate::scalar).
pub trait Argument<'a>: Sized {
    /// How the column is read.
    #[doc(hidden)]
    type Column: 'a;
    /// Whether the function is called for nulls.
    #[doc(hidden)]
    const TAKES_NULLS: bool;

    /// The type of the column.
    #[doc(hidden)]
    fn data_type() -> DataType;
    /// Reads a column of that type.
    #[doc(hidden)]
    fn column(view: View<'a>) -> Result<Self::Column>;
    /// The value of a row; nothing if it is a null that the function is not called for.
    #[doc(hidden)]
    fn get(column: &Self::Column, row: usize) -> Option<Self>;
}

/// A type of the result of a function in [`scalar!`](crate::scalar).
pub trait Returned: Sized {
    /// The collector of the results.
    #[doc(hidden)]
    type Values: Collects;
    /// Whether a result may be null although no argument is.
    #[doc(hidden)]
    const MAY_BE_NULL: bool;

    /// The type of the column.
    #[doc(hidden)]
    fn data_type() -> DataType;
    /// Adds the result of a row.
    #[doc(hidden)]
    fn push(self, values: &mut Self::Values) -> Result<()>;
}

/// Results that are collected to a column.
#[doc(hidden)]
pub trait Collects: Default {
    /// Adds a null.
    fn push_null(&mut self);
    /// The results as a column.
    fn finish(self) -> Column;
}

/// Numbers or truth values, and which are there once one is not.
#[doc(hidden)]
#[derive(Debug)]
pub struct Plain<V> {
    values: V,
    len: usize,
    validity: Option<Bits>,
}

impl<V: Default> Default for Plain<V> {
    fn default() -> Plain<V> {
        Plain {
            values: V::default(),
            len: 0,
            validity: None,
        }
    }
}

impl<V> Plain<V> {
    fn pushed(&mut self, is_valid: bool) {
        let len = self.len;
        self.len += 1;
        if !is_valid && self.validity.is_none() {
            self.validity = Some(Bits::repeat(true, len));
        }
        if let Some(validity) = &mut self.validity {
            validity.push(is_valid);
        }
    }

    fn finished(validity: Option<Bits>, column: Column) -> Column {
        match validity {
            Some(validity) => column.with_validity(validity),
            None => column,
        }
    }
}

impl<T: Number> Collects for Plain<Vec<T>> {
    fn push_null(&mut self) {
        self.values.push(T::default());
        self.pushed(false);
    }

    fn finish(self) -> Column {
        Self::finished(self.validity, self.values.into())
    }
}

impl Collects for Plain<Bits> {
    fn push_null(&mut self) {
        self.values.push(false);
        self.pushed(false);
    }

    fn finish(self) -> Column {
        Self::finished(self.validity, Column::boolean(self.values))
    }
}

impl Collects for Utf8Builder {
    fn push_null(&mut self) {
        Utf8Builder::push_null(self);
    }

    fn finish(self) -> Column {
        self.into()
    }
}

impl Collects for BinaryBuilder {
    fn push_null(&mut self) {
        BinaryBuilder::push_null(self);
    }

    fn finish(self) -> Column {
        self.into()
    }
}

macro_rules! arguments {
    ($($type:ty: $data_type:ident, $view:ty, $method:ident;)+) => {$(
        impl<'a> Argument<'a> for $type {
            type Column = $view;
            const TAKES_NULLS: bool = false;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn column(view: View<'a>) -> Result<$view> {
                view.$method()
            }

            #[inline]
            fn get(column: &$view, row: usize) -> Option<$type> {
                column.get(row)
            }
        }

        impl<'a> Argument<'a> for Option<$type> {
            type Column = $view;
            const TAKES_NULLS: bool = true;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn column(view: View<'a>) -> Result<$view> {
                view.$method()
            }

            #[inline]
            fn get(column: &$view, row: usize) -> Option<Option<$type>> {
                Some(column.get(row))
            }
        }
    )+};
}

arguments! {
    bool: Boolean, Booleans<'a>, boolean;
    i8: Int8, Values<'a, i8>, i8;
    i16: Int16, Values<'a, i16>, i16;
    i32: Int32, Values<'a, i32>, i32;
    i64: Int64, Values<'a, i64>, i64;
    u8: Uint8, Values<'a, u8>, u8;
    u16: Uint16, Values<'a, u16>, u16;
    u32: Uint32, Values<'a, u32>, u32;
    u64: Uint64, Values<'a, u64>, u64;
    f32: Float32, Values<'a, f32>, f32;
    f64: Float64, Values<'a, f64>, f64;
    &'a str: Utf8, Texts<'a>, utf8;
    &'a [u8]: Binary, Binaries<'a>, binary;
}

macro_rules! returned {
    ($($type:ty: $data_type:ident, $values:ty, |$collected:ident, $value:ident| $push:expr;)+) => {$(
        impl Returned for $type {
            type Values = $values;
            const MAY_BE_NULL: bool = false;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            #[inline]
            fn push(self, $collected: &mut $values) -> Result<()> {
                let $value = self;
                $push;
                Ok(())
            }
        }

        impl Returned for Option<$type> {
            type Values = $values;
            const MAY_BE_NULL: bool = true;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            #[inline]
            fn push(self, values: &mut $values) -> Result<()> {
                match self {
                    Some(value) => Returned::push(value, values),
                    None => {
                        values.push_null();
                        Ok(())
                    }
                }
            }
        }

        impl Returned for Result<$type> {
            type Values = $values;
            const MAY_BE_NULL: bool = false;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            #[inline]
            fn push(self, values: &mut $values) -> Result<()> {
                Returned::push(self?, values)
            }
        }

        impl Returned for Result<Option<$type>> {
            type Values = $values;
            const MAY_BE_NULL: bool = true;

            fn data_type() -> DataType {
                DataType::$data_type
            }

            #[inline]
            fn push(self, values: &mut $values) -> Result<()> {
                Returned::push(self?, values)
            }
        }
    )+};
}

macro_rules! returned_numbers {
    ($($type:ty: $data_type:ident;)+) => {
        returned! {$(
            $type: $data_type, Plain<Vec<$type>>, |collected, value| {
                Vec::push(&mut collected.values, value);
                collected.pushed(true)
            };
        )+}
    };
}

returned_numbers! {
    i8: Int8; i16: Int16; i32: Int32; i64: Int64; u8: Uint8; u16: Uint16; u32: Uint32; u64: Uint64; f32: Float32; f64: Float64;
}

returned! {
    bool: Boolean, Plain<Bits>, |collected, value| {
        collected.values.push(value);
        collected.pushed(true)
    };
    &str: Utf8, Utf8Builder, |collected, value| collected.push(value);
    String: Utf8, Utf8Builder, |collected, value| collected.push(&value);
    &[u8]: Binary, BinaryBuilder, |collected, value| collected.push(value);
    Vec<u8>: Binary, BinaryBuilder, |collected, value| collected.push(&value);
}

/// Type of an argument, and whether the function is called for nulls.
#[doc(hidden)]
pub fn takes<'a, A: Argument<'a>>() -> (DataType, bool) {
    (A::data_type(), A::TAKES_NULLS)
}

/// Types of a function that returns `R`.
#[doc(hidden)]
pub fn bind<R: Returned>(given: &Schema, takes: &[(DataType, bool)]) -> Result<Signature> {
    let n_given = given.fields().len();
    if n_given != takes.len() {
        let types: Vec<String> = takes.iter().map(|(one, _)| one.to_string()).collect();
        let n = match takes.len() {
            1 => "1 argument".to_owned(),
            n => format!("{n} arguments"),
        };
        return Err(Error::new(format!(
            "it takes {n} ({}), and {n_given} are given",
            types.join(", ")
        )));
    }
    let mut passed_over = given.fields().iter().zip(takes);
    let signature = Signature::new(
        takes.iter().map(|(one, _)| one.clone()).collect::<Vec<_>>(),
        R::data_type(),
    );
    let may_be_null = R::MAY_BE_NULL
        || passed_over.any(|(field, (_, takes_nulls))| field.nullable && !takes_nulls);
    Ok(match may_be_null {
        true => signature,
        false => signature.not_null(),
    })
}

/// The columns of the arguments, one after the other.
#[doc(hidden)]
#[derive(Debug)]
pub struct Arguments<'a> {
    batch: &'a Batch,
    next: usize,
}

impl<'a> Arguments<'a> {
    /// From the first one on.
    pub fn of(batch: &'a Batch) -> Arguments<'a> {
        Arguments { batch, next: 0 }
    }

    /// The next one.
    pub fn column<A: Argument<'a>>(&mut self) -> Result<A::Column> {
        let position = self.next;
        if position >= self.batch.schema().fields().len() {
            return Err(Error::new(format!("there is no argument `arg{position}`")));
        }
        self.next += 1;
        A::column(self.batch.view(position, 0..self.batch.rows())?)
    }
}

/// The results of all rows; null where there is none.
#[doc(hidden)]
pub fn collect<R: Returned>(
    rows: usize,
    mut result: impl FnMut(usize) -> Option<R>,
) -> Result<Column> {
    let mut values = R::Values::default();
    for row in 0..rows {
        match result(row) {
            Some(result) => result.push(&mut values)?,
            None => values.push_null(),
        }
    }
    Ok(values.finish())
}
