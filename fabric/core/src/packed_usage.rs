//! What an attempt used, in few bytes: a control plane keeps it for each of a hundred thousand tasks.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::receipt::FunctionUsage;

/// Usage of one attempt, by stage of the job file and function; in JSON the list that it stands for. Most meters of most
/// attempts are zero: packed they take a byte each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedUsage(Box<[u8]>);

impl PackedUsage {
    /// The lines.
    pub fn lines(&self) -> Vec<FunctionUsage> {
        postcard::from_bytes(&self.0).expect("only `from` makes one, out of such lines")
    }
}

impl From<Vec<FunctionUsage>> for PackedUsage {
    fn from(lines: Vec<FunctionUsage>) -> PackedUsage {
        let packed = postcard::to_allocvec(&lines).expect("texts and numbers can be packed");
        PackedUsage(packed.into())
    }
}

impl Serialize for PackedUsage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.lines().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PackedUsage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PackedUsage, D::Error> {
        Vec::deserialize(deserializer).map(PackedUsage::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Meters;

    #[test]
    fn lines_come_back_and_take_little_room() {
        let line = |function: &str, meter: u64| FunctionUsage {
            stage: "visits".into(),
            function: function.into(),
            billed_attempts: 1,
            billed: Meters {
                guest_cpu_ns: meter,
                memory_byte_ns: u128::from(meter) << 40,
                ..Meters::default()
            },
            ..FunctionUsage::default()
        };
        for meter in [0, 1, u64::from(u32::MAX), u64::MAX] {
            let lines = vec![line("weblog@0.1.0/parse", meter), line("-", meter)];
            let packed = PackedUsage::from(lines.clone());
            assert_eq!(packed.lines(), lines);
            let json = serde_json::to_string(&packed).unwrap();
            assert_eq!(json, serde_json::to_string(&lines).unwrap());
            assert_eq!(serde_json::from_str::<PackedUsage>(&json).unwrap(), packed);
            assert!(packed.0.len() < 250, "{} bytes", packed.0.len());
        }
    }
}
