//! Memory of columns: typed vectors that can be seen as bytes, and bytes that can be seen as typed slices.

use crate::schema::Kind;

/// A number that Arrow stores as it lies in memory.
#[doc(hidden)]
pub trait Native: Copy + Default + sealed::Sealed + 'static {}

mod sealed {
    use super::Buffer;

    /// Implemented below for plain numbers only: no padding, every bit pattern valid. The `unsafe` here relies on that.
    pub trait Sealed: Sized {
        fn into_buffer(values: Vec<Self>) -> Buffer;
    }
}

macro_rules! native {
    ($($variant:ident $native:ty,)+) => {
        /// One buffer of a column: bytes as they came, or a vector that was handed over whole.
        #[derive(Clone, Debug)]
        pub enum Buffer { $($variant(Vec<$native>),)+ }

        impl Buffer {
            pub(crate) fn as_bytes(&self) -> &[u8] {
                match self { $(Buffer::$variant(values) => bytes_of(values),)+ }
            }
        }

        $(
            impl Native for $native {}
            impl sealed::Sealed for $native {
                fn into_buffer(values: Vec<$native>) -> Buffer {
                    Buffer::$variant(values)
                }
            }
        )+
    };
}

native! {
    Int8 i8, Int16 i16, Int32 i32, Int64 i64, Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64, Float32 f32, Float64 f64,
    Int128 i128,
}

impl<T: Native> From<Vec<T>> for Buffer {
    fn from(values: Vec<T>) -> Buffer {
        T::into_buffer(values)
    }
}

impl Buffer {
    /// Takes bytes in; they are copied only if they do not lie as values of `kind` must.
    pub(crate) fn values(kind: Kind, bytes: Vec<u8>) -> Buffer {
        match kind.width() {
            2 => aligned::<i16>(bytes),
            4 => aligned::<i32>(bytes),
            8 => aligned::<i64>(bytes),
            16 => aligned::<i128>(bytes),
            _ => bytes.into(),
        }
    }

    /// Takes offsets in. Arrow lets them be left out where there are no rows.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn offsets(bytes: Vec<u8>) -> Buffer {
        if bytes.is_empty() {
            vec![0i32].into()
        } else {
            aligned::<i32>(bytes)
        }
    }

    pub(crate) fn as_slice<T: Native>(&self) -> &[T] {
        cast(self.as_bytes()).expect("buffers are aligned when they are taken in")
    }
}

impl Kind {
    /// Bytes a value, 0 where values are no plain numbers.
    pub(crate) fn width(self) -> usize {
        match self {
            Kind::Int8 | Kind::Uint8 => 1,
            Kind::Int16 | Kind::Uint16 => 2,
            Kind::Int32 | Kind::Uint32 | Kind::Float32 | Kind::Date32 => 4,
            Kind::Int64 | Kind::Uint64 | Kind::Float64 | Kind::TimestampUs => 8,
            Kind::Decimal128 => 16,
            Kind::Boolean | Kind::Utf8 | Kind::Binary | Kind::ArrayOf | Kind::StructOf => 0,
        }
    }
}

fn aligned<T: Native>(bytes: Vec<u8>) -> Buffer {
    if cast::<T>(&bytes).is_some() {
        return bytes.into();
    }
    let mut values = vec![T::default(); bytes.len() / size_of::<T>()];
    let whole = values.len() * size_of::<T>();
    bytes_of_mut(&mut values).copy_from_slice(&bytes[..whole]);
    values.into()
}

fn bytes_of<T: Native>(values: &[T]) -> &[u8] {
    // SAFETY: the pointer and the length in bytes are those of a live slice of plain numbers, which have no padding.
    #[expect(unsafe_code, reason = "plain numbers seen as bytes")]
    unsafe {
        std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values))
    }
}

fn bytes_of_mut<T: Native>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and every bit pattern is a valid number.
    #[expect(unsafe_code, reason = "plain numbers seen as bytes")]
    unsafe {
        std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values))
    }
}

/// The whole values in `bytes`, or `None` if they are not aligned. Bytes after the last whole value are padding.
fn cast<T: Native>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: every bit pattern is a valid number, and `align_to` minds alignment and length.
    #[expect(unsafe_code, reason = "bytes seen as plain numbers")]
    let (before, values, _) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && values.len() == bytes.len() / size_of::<T>()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_bytes_are_copied() {
        let bytes: Vec<u8> = (0..64).collect();
        for shift in 0..16 {
            let piece = bytes[shift..shift + 32].to_vec();
            let expected: Vec<_> = piece
                .chunks(16)
                .map(|c| i128::from_le_bytes(c.try_into().expect("16")))
                .collect();
            assert_eq!(
                Buffer::values(Kind::Decimal128, piece).as_slice::<i128>(),
                expected
            );
        }
        assert!(cast::<i64>(&bytes_of(&[0u64; 4])[1..]).is_none());
    }

    #[test]
    fn missing_offsets_are_one_zero() {
        assert_eq!(Buffer::offsets(vec![]).as_slice::<i32>(), [0]);
    }
}
