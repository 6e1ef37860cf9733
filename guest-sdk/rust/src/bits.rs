/// A growing list of bits: values of a boolean column, which values are there, or which rows [`Batch::filter`] keeps.
///
/// [`Batch::filter`]: crate::Batch::filter
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    /// No bits yet.
    pub fn new() -> Bits {
        Bits::default()
    }

    /// `len` bits that are all `bit`.
    pub fn repeat(bit: bool, len: usize) -> Bits {
        let mut bits = Bits {
            bytes: vec![if bit { 0xff } else { 0 }; len.div_ceil(8)],
            len,
        };
        bits.clear_tail();
        bits
    }

    /// Appends a bit.
    pub fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.bytes[self.len / 8] |= u8::from(bit) << (self.len % 8);
        self.len += 1;
    }

    /// The bit at this position. Panics past the end.
    pub fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        self.bytes[index / 8] >> (index % 8) & 1 == 1
    }

    /// How many bits there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no bit.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bits are not set.
    pub fn zeros(&self) -> usize {
        self.len
            - self
                .bytes
                .iter()
                .map(|byte| byte.count_ones() as usize)
                .sum::<usize>()
    }

    /// The bits in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len).map(|index| self.get(index))
    }

    /// The bits packed into bytes, the least significant bit first; what is left of the last byte is 0.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes packed bits in; `None` if there are fewer than `len`.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn from_bytes(mut bytes: Vec<u8>, len: usize) -> Option<Bits> {
        if bytes.len() < len.div_ceil(8) {
            return None;
        }
        bytes.truncate(len.div_ceil(8));
        let mut bits = Bits { bytes, len };
        bits.clear_tail();
        Some(bits)
    }

    fn clear_tail(&mut self) {
        if let (Some(last), used @ 1..) = (self.bytes.last_mut(), self.len % 8) {
            *last &= (1 << used) - 1;
        }
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Bits {
        let mut all = Bits::new();
        bits.into_iter().for_each(|bit| all.push(bit));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_the_least_significant_bit_first() {
        let bits: Bits = (0..11).map(|i| i % 3 == 0).collect();
        assert_eq!(bits.as_bytes(), [0b0100_1001, 0b0000_0010]);
        assert_eq!((bits.len(), bits.zeros()), (11, 7));
        assert_eq!(bits.iter().collect::<Bits>(), bits);
    }

    #[test]
    fn ignores_what_follows_the_last_bit() {
        let bits = Bits::from_bytes(vec![0xff, 0xff, 0xff], 9).expect("enough bytes");
        assert_eq!(bits, Bits::repeat(true, 9));
        assert_eq!(Bits::from_bytes(vec![0xff], 9), None);
    }
}
