//! What an attempt used, as integers that only grow: merging by maximum makes doubled and late reports harmless.

use serde::{Deserialize, Serialize};

/// Cumulative meters of one function in one attempt of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meters {
    /// CPU time inside the guest.
    pub guest_cpu_ns: u64,
    /// CPU time outside guests: that of the task's thread, and for a function that of expressions that it evaluates.
    pub native_cpu_ns: u64,
    /// Time from the start of the attempt to its end.
    pub wall_ns: u64,
    /// Memory held, integrated over wall time. In JSON a text of digits: it outgrows what JSON's readers take for a number.
    #[serde(with = "digits")]
    pub memory_byte_ns: u128,
    /// The most memory held at a time.
    pub memory_peak_bytes: u64,
    /// Rows that went in.
    pub rows_in: u64,
    /// Records of inputs that could not be read and were left out, as the job asked.
    pub bad_records: u64,
    /// Values of JSON records that were passed over, because no column has their key.
    pub unknown_fields: u64,
    /// Rows that came out.
    pub rows_out: u64,
    /// Bytes read from inputs: of text formats after decompression, of Parquet those of the column chunks.
    pub bytes_read: u64,
    /// Bytes written to outputs.
    pub bytes_written: u64,
    /// Bytes read from shuffle objects.
    pub shuffle_bytes_read: u64,
    /// Bytes written to shuffle objects.
    pub shuffle_bytes_written: u64,
    /// Bytes that were written to disk, because rows to group, sort or join did not fit into memory.
    pub spilled_bytes: u64,
    /// Requests to buckets that read an object, or a range of one.
    pub get_requests: u64,
    /// Requests to buckets that write an object, or a part of one.
    pub put_requests: u64,
    /// Requests to buckets that list objects.
    pub list_requests: u64,
    /// Requests to buckets that ask for an object's size.
    pub head_requests: u64,
    /// Requests to buckets that remove an object.
    pub delete_requests: u64,
    /// Calls into the guest.
    pub guest_calls: u64,
}

/// Large integers as text of digits.
mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| de::Error::custom("not a whole number"))
    }
}

macro_rules! fold {
    ($a:expr, $b:expr, $op:ident, $peak:ident) => {
        Meters {
            guest_cpu_ns: $a.guest_cpu_ns.$op($b.guest_cpu_ns),
            native_cpu_ns: $a.native_cpu_ns.$op($b.native_cpu_ns),
            wall_ns: $a.wall_ns.$op($b.wall_ns),
            memory_byte_ns: $a.memory_byte_ns.$op($b.memory_byte_ns),
            memory_peak_bytes: $a.memory_peak_bytes.$peak($b.memory_peak_bytes),
            rows_in: $a.rows_in.$op($b.rows_in),
            bad_records: $a.bad_records.$op($b.bad_records),
            unknown_fields: $a.unknown_fields.$op($b.unknown_fields),
            rows_out: $a.rows_out.$op($b.rows_out),
            bytes_read: $a.bytes_read.$op($b.bytes_read),
            bytes_written: $a.bytes_written.$op($b.bytes_written),
            shuffle_bytes_read: $a.shuffle_bytes_read.$op($b.shuffle_bytes_read),
            shuffle_bytes_written: $a.shuffle_bytes_written.$op($b.shuffle_bytes_written),
            spilled_bytes: $a.spilled_bytes.$op($b.spilled_bytes),
            get_requests: $a.get_requests.$op($b.get_requests),
            put_requests: $a.put_requests.$op($b.put_requests),
            list_requests: $a.list_requests.$op($b.list_requests),
            head_requests: $a.head_requests.$op($b.head_requests),
            delete_requests: $a.delete_requests.$op($b.delete_requests),
            guest_calls: $a.guest_calls.$op($b.guest_calls),
        }
    };
}

impl Meters {
    /// Two reports of the same attempt: the later one wins, whichever way round they arrive.
    #[must_use]
    pub fn merge_max(&self, other: &Meters) -> Meters {
        fold!(self, other, max, max)
    }

    /// Two attempts, or two tasks: sums, and the larger peak. Saturates rather than wraps.
    #[must_use]
    pub fn add(&self, other: &Meters) -> Meters {
        fold!(self, other, saturating_add, max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_twice_and_out_of_order_change_nothing() {
        let first = Meters {
            guest_cpu_ns: 5,
            rows_in: 10,
            ..Meters::default()
        };
        let second = Meters {
            guest_cpu_ns: 9,
            rows_in: 30,
            memory_peak_bytes: 7,
            ..Meters::default()
        };
        let expected = first.merge_max(&second);
        assert_eq!(
            second
                .merge_max(&first)
                .merge_max(&second)
                .merge_max(&first),
            expected
        );
        assert_eq!(expected, second);
        assert_eq!(first.add(&second).rows_in, 40);
    }
}
