//! Usage and its price. Meters are integers; prices are applied to sums, in micro-units, and rounded up once per line.

use serde::{Deserialize, Serialize};

use crate::meters::Meters;

/// What one function of one stage used, the user's attempts apart from the platform's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionUsage {
    /// The stage's name in the job file; empty for planning.
    pub stage: String,
    /// `component@version/function`, or `-` for work that is the fabric's own (scan, shuffle, sink).
    pub function: String,
    /// Attempts that count: committed ones, and failures that are the user's.
    pub billed_attempts: u64,
    /// Their meters.
    pub billed: Meters,
    /// Attempts that are free: lost executors, store faults, duplicates.
    pub platform_attempts: u64,
    /// Their meters, as far as they were reported.
    pub platform: Meters,
}

impl FunctionUsage {
    /// Adds another report about the same function of the same stage.
    pub fn add(&mut self, other: &FunctionUsage) {
        self.billed_attempts = self.billed_attempts.saturating_add(other.billed_attempts);
        self.billed = self.billed.add(&other.billed);
        self.platform_attempts = self
            .platform_attempts
            .saturating_add(other.platform_attempts);
        self.platform = self.platform.add(&other.platform);
    }

    /// Moves what was billed to the platform's account.
    pub fn waive(&mut self) {
        let waived = std::mem::take(&mut self.billed_attempts);
        self.platform_attempts = self.platform_attempts.saturating_add(waived);
        self.platform = self.platform.add(&std::mem::take(&mut self.billed));
    }
}

/// How CPU time is rounded before it is priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BillingPlan {
    /// Up to the next second.
    #[default]
    PerSecond,
    /// Up to the next millisecond.
    PerMillisecond,
}

impl BillingPlan {
    fn quantum_ns(self) -> u64 {
        match self {
            BillingPlan::PerSecond => 1_000_000_000,
            BillingPlan::PerMillisecond => 1_000_000,
        }
    }
}

/// Prices in micro-units (millionths of the currency's unit).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceSheet {
    /// Names the sheet on the receipt.
    pub version: String,
    /// ISO 4217.
    pub currency: String,
    /// For an hour of CPU, guest and native alike.
    pub cpu_hour_micro: u64,
    /// For holding a GiB for an hour.
    pub memory_gib_hour_micro: u64,
    /// For a million requests that read objects of a bucket. Sheets of earlier versions had no prices for requests.
    #[serde(default)]
    pub get_million_micro: u64,
    /// For a million requests that write objects, or parts of them.
    #[serde(default)]
    pub put_million_micro: u64,
    /// For a million requests that list objects.
    #[serde(default)]
    pub list_million_micro: u64,
    /// For a million requests that ask for an object's size.
    #[serde(default)]
    pub head_million_micro: u64,
    /// For a million requests that remove objects.
    #[serde(default)]
    pub delete_million_micro: u64,
}

impl Default for PriceSheet {
    fn default() -> Self {
        Self {
            version: "2026-12".into(),
            currency: "USD".into(),
            cpu_hour_micro: 40_000,
            memory_gib_hour_micro: 4_500,
            get_million_micro: 400_000,
            put_million_micro: 5_000_000,
            list_million_micro: 5_000_000,
            head_million_micro: 400_000,
            delete_million_micro: 0,
        }
    }
}

const HOUR_NS: u128 = 3_600_000_000_000;
const MILLION: u128 = 1_000_000;

impl PriceSheet {
    /// The price of a line: CPU rounded up by `plan`, then CPU, memory and requests priced, each rounded up to a
    /// micro-unit.
    pub fn amount_micro(&self, plan: BillingPlan, meters: &Meters) -> u64 {
        let cpu_ns = meters.guest_cpu_ns.saturating_add(meters.native_cpu_ns);
        let rounded_ns = cpu_ns
            .div_ceil(plan.quantum_ns())
            .saturating_mul(plan.quantum_ns());
        let cpu = (u128::from(rounded_ns) * u128::from(self.cpu_hour_micro)).div_ceil(HOUR_NS);
        let memory = meters
            .memory_byte_ns
            .saturating_mul(u128::from(self.memory_gib_hour_micro))
            .div_ceil(HOUR_NS << 30);
        let amount = cpu.saturating_add(memory);
        let amount = amount.saturating_add(self.requests_micro(meters));
        u64::try_from(amount).unwrap_or(u64::MAX)
    }

    /// The price of requests to buckets, rounded up once for all kinds.
    fn requests_micro(&self, meters: &Meters) -> u128 {
        let kinds = [
            (meters.get_requests, self.get_million_micro),
            (meters.put_requests, self.put_million_micro),
            (meters.list_requests, self.list_million_micro),
            (meters.head_requests, self.head_million_micro),
            (meters.delete_requests, self.delete_million_micro),
        ];
        let prices = kinds.map(|(n, price)| u128::from(n) * u128::from(price));
        let sum = prices.into_iter().fold(0, u128::saturating_add);
        sum.div_ceil(MILLION)
    }

    /// The prices of a line under both plans.
    pub fn amounts(&self, meters: &Meters) -> Amounts {
        Amounts {
            amount_micro: self.amount_micro(BillingPlan::PerSecond, meters),
            amount_per_millisecond_micro: self.amount_micro(BillingPlan::PerMillisecond, meters),
        }
    }
}

/// Prices of a line under both plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// Per second, rounded up, in micro-units.
    pub amount_micro: u64,
    /// Per millisecond, rounded up, in micro-units.
    pub amount_per_millisecond_micro: u64,
}

impl Amounts {
    /// The sum.
    #[must_use]
    pub fn add(&self, other: &Amounts) -> Amounts {
        Amounts {
            amount_micro: self.amount_micro.saturating_add(other.amount_micro),
            amount_per_millisecond_micro: self
                .amount_per_millisecond_micro
                .saturating_add(other.amount_per_millisecond_micro),
        }
    }

    /// The growth from `before`, which was not more.
    #[must_use]
    pub fn since(&self, before: &Amounts) -> Amounts {
        Amounts {
            amount_micro: self.amount_micro.saturating_sub(before.amount_micro),
            amount_per_millisecond_micro: self
                .amount_per_millisecond_micro
                .saturating_sub(before.amount_per_millisecond_micro),
        }
    }
}

/// One line of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLine {
    /// Usage of one function of one stage.
    #[serde(flatten)]
    pub usage: FunctionUsage,
    /// The price.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// What a job used and costs. The total is the sum of the lines, to the last micro-unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The job's id.
    pub job: String,
    /// The plan that `amount_micro` follows.
    pub plan: BillingPlan,
    /// Prices that were applied.
    pub price_sheet: PriceSheet,
    /// By stage and function, in the order of the plan.
    pub lines: Vec<ReceiptLine>,
    /// Sum of the billed meters.
    pub billed: Meters,
    /// Sum of what the platform bears.
    pub platform: Meters,
    /// Sum of the lines.
    pub amount_micro: u64,
    /// Sum of the lines under the per-millisecond plan.
    pub amount_per_millisecond_micro: u64,
    /// True until the job has ended.
    pub provisional: bool,
}

impl Receipt {
    /// Prices `usage`.
    pub fn new(
        job: String,
        usage: &[FunctionUsage],
        price_sheet: PriceSheet,
        provisional: bool,
    ) -> Self {
        let line = |usage: &FunctionUsage| ReceiptLine {
            amounts: price_sheet.amounts(&usage.billed),
            usage: usage.clone(),
        };
        let lines = usage.iter().map(line).collect();
        Self::of_lines(job, lines, price_sheet, provisional)
    }

    /// Sums up lines that have been priced.
    pub fn of_lines(
        job: String,
        lines: Vec<ReceiptLine>,
        price_sheet: PriceSheet,
        provisional: bool,
    ) -> Self {
        let sum = |pick: fn(&FunctionUsage) -> &Meters| {
            let usage = lines.iter().map(|line| &line.usage);
            usage.fold(Meters::default(), |sum, usage| sum.add(pick(usage)))
        };
        // Meters come from executors: whatever they say is to be reckoned with.
        let amounts = lines.iter().map(|line| &line.amounts);
        let Amounts {
            amount_micro,
            amount_per_millisecond_micro,
        } = amounts.fold(Amounts::default(), |sum, amounts| sum.add(amounts));
        Self {
            job,
            plan: BillingPlan::PerSecond,
            billed: sum(|usage| &usage.billed),
            platform: sum(|usage| &usage.platform),
            amount_micro,
            amount_per_millisecond_micro,
            price_sheet,
            lines,
            provisional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_rounded_up_once_and_the_total_is_the_sum() {
        let sheet = PriceSheet {
            cpu_hour_micro: 3_600_000,
            ..PriceSheet::default()
        };
        let usage = |cpu_ns| FunctionUsage {
            billed: Meters {
                guest_cpu_ns: cpu_ns,
                ..Meters::default()
            },
            ..FunctionUsage::default()
        };
        let receipt = Receipt::new(
            "job".into(),
            &[usage(1), usage(1_000_000_001)],
            sheet,
            false,
        );
        assert_eq!(receipt.lines[0].amounts.amount_micro, 1_000);
        assert_eq!(receipt.lines[1].amounts.amount_micro, 2_000);
        assert_eq!(receipt.amount_micro, 3_000);
        assert_eq!(receipt.amount_per_millisecond_micro, 1 + 1_001);
        assert_eq!(receipt.billed.guest_cpu_ns, 1_000_000_002);
    }

    #[test]
    fn requests_have_prices_by_kind() {
        let sheet = PriceSheet::default();
        let amount = |meters: Meters| sheet.amount_micro(BillingPlan::PerSecond, &meters);
        let two = Meters {
            get_requests: 2,
            ..Meters::default()
        };
        assert_eq!(amount(two), 1, "0.8 micro-units");
        let many = Meters {
            get_requests: 1_000_000,
            put_requests: 1_000,
            list_requests: 10,
            head_requests: 5,
            delete_requests: 1_000_000,
            ..Meters::default()
        };
        assert_eq!(amount(many), 400_000 + 5_000 + 50 + 2);
        let most = Meters {
            get_requests: u64::MAX,
            put_requests: u64::MAX,
            ..Meters::default()
        };
        assert_eq!(amount(most), u64::MAX);
        let mut earlier = serde_json::to_value(&sheet).expect("plain data");
        let fields = earlier.as_object_mut().expect("an object");
        fields.retain(|key, _| !key.ends_with("million_micro"));
        let earlier: PriceSheet = serde_json::from_value(earlier).expect("it is read");
        assert_eq!(earlier.amount_micro(BillingPlan::PerSecond, &many), 0);
    }

    #[test]
    fn receipts_survive_json_whatever_they_hold() {
        let billed = Meters {
            memory_byte_ns: u128::MAX / 3,
            guest_cpu_ns: u64::MAX,
            ..Meters::default()
        };
        let usage = FunctionUsage {
            billed,
            ..FunctionUsage::default()
        };
        let receipt = Receipt::new("job".into(), &[usage], PriceSheet::default(), false);
        let json = serde_json::to_value(&receipt).expect("it is plain data");
        assert_eq!(
            serde_json::from_value::<Receipt>(json).expect("and comes back"),
            receipt
        );
    }
}
