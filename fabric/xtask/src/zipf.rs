//! Random numbers that are the same on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014): a sequence that its seed decides.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence number `stream` of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        Random(mix(mix(seed) ^ stream))
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `n`. The error of the fixed-point product is below `n` in 2^32.
    #[inline]
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        scale(self.next() >> 32, n)
    }
}

/// Spreads the bits of a number; a bijection.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[inline]
fn scale(bits: u64, n: u32) -> u32 {
    ((bits * u64::from(n)) >> 32) as u32
}

/// Numbers from 0 whose frequencies fall as `1 / (number + 1)^exponent`, drawn in constant time.
///
/// The alias method (Vose 1991): each of `n` columns, all equally likely, holds its own number up to a height, and another
/// one above.
pub(crate) struct Zipf {
    columns: Vec<(u32, u32)>,
}

impl Zipf {
    /// `n` numbers, 1 or more; the exponent counts in eighths: powers of square roots round alike on all machines.
    pub(crate) fn new(n: u32, eighths: u32) -> Zipf {
        let weights: Vec<f64> = (1..=n).map(|rank| 1.0 / power(rank, eighths)).collect();
        let mean = weights.iter().sum::<f64>() / f64::from(n);
        let mut heights: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let (mut low, mut high): (Vec<u32>, Vec<u32>) =
            (0..n).partition(|index| heights[*index as usize] < 1.0);
        let mut columns: Vec<(u32, u32)> = (0..n).map(|index| (u32::MAX, index)).collect();
        while let (Some(small), Some(&large)) = (low.pop(), high.last()) {
            let height = heights[small as usize];
            columns[small as usize] = ((height * 4_294_967_296.0) as u32, large);
            heights[large as usize] -= 1.0 - height;
            if heights[large as usize] < 1.0 {
                low.extend(high.pop());
            }
        }
        Zipf { columns }
    }

    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let bits = random.next();
        let index = scale(bits >> 32, self.columns.len() as u32) as usize;
        let (height, other) = self.columns[index];
        if (bits as u32) < height {
            index
        } else {
            other as usize
        }
    }
}

fn power(rank: u32, eighths: u32) -> f64 {
    let root = f64::from(rank).sqrt().sqrt().sqrt();
    (0..eighths).fold(1.0, |power, _| power * root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_the_law() {
        let (zipf, mut random, n) = (Zipf::new(100, 8), Random::new(7, 0), 1_000_000);
        let mut counts = [0u32; 100];
        (0..n).for_each(|_| counts[zipf.draw(&mut random)] += 1);
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = f64::from(n) / harmonic / f64::from(rank);
            let found = f64::from(counts[rank as usize - 1]);
            assert!(
                (found - expected).abs() < 5.0 * expected.sqrt(),
                "{rank}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn one_number_is_always_drawn() {
        let (zipf, mut random) = (Zipf::new(1, 9), Random::new(0, 0));
        assert!((0..1000).all(|_| zipf.draw(&mut random) == 0));
    }

    #[test]
    fn streams_of_a_seed_differ() {
        let first = |seed, stream| Random::new(seed, stream).next();
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
    }
}
