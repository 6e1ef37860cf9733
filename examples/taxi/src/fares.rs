use weft::prelude::*;

/// How many trips there were, and their fares together: exact, in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fares {
    pub(crate) cents: i64,
    pub(crate) trips: i64,
}

impl Fares {
    /// Adds some trips. Fails where the sum would not be exact any more.
    pub(crate) fn add(&mut self, more: Fares) -> Result<()> {
        let cents = self.cents.checked_add(more.cents);
        self.cents = cents.ok_or("the fares of a zone and hour are too many cents for 64 bits")?;
        self.trips += more.trips;
        Ok(())
    }

    /// The mean fare in dollars: one division of whole numbers.
    pub(crate) fn mean(self) -> f64 {
        self.cents as f64 / (100 * self.trips) as f64
    }
}

/// A fare in dollars as cents, to the nearest one. `None` for what is no amount of money: infinite, not a number, or so
/// large that floats do not tell cents apart.
pub(crate) fn cents(dollars: f64) -> Option<i64> {
    const MAX: f64 = (1i64 << f64::MANTISSA_DIGITS) as f64;
    let cents = (100.0 * dollars).round_ties_even();
    (cents.abs() < MAX).then_some(cents as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_whole_cents() {
        assert_eq!(cents(0.29), Some(29));
        assert_eq!(cents(17.5), Some(1750));
        assert_eq!(cents(-2.5), Some(-250));
        assert_eq!(cents(1.15 + 1e-12), Some(115));
        for dollars in [f64::NAN, f64::INFINITY, -1e300, 1e15] {
            assert_eq!(cents(dollars), None);
        }
    }

    #[test]
    fn sums_are_exact_or_fail() {
        let fares = |cents, trips| Fares { cents, trips };
        let mut sum = fares(i64::MAX - 10, 1);
        sum.add(fares(10, 2)).expect("fits");
        assert_eq!(sum, fares(i64::MAX, 3));
        sum.add(fares(1, 1)).expect_err("does not fit");
        assert_eq!(fares(1000, 3).mean(), 10.0 / 3.0);
    }
}
