//! Names of actors, and the shards that their keys fall into.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shards of a tenant's actors.
pub const SHARDS: u32 = 8;
/// Bytes of an actor's key.
pub const MAX_ACTOR_KEY_BYTES: usize = 512;
/// Bytes of the name of a method.
pub const MAX_METHOD_BYTES: usize = 128;

/// An actor of a tenant: the same for all versions of its component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorRef {
    /// Name of the component.
    pub component: String,
    /// The actor function of the component.
    pub actor: String,
    /// The instance: 1 to [`MAX_ACTOR_KEY_BYTES`] bytes without control characters.
    pub key: String,
}

/// A key that no actor may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a key of an actor: 1 to {MAX_ACTOR_KEY_BYTES} bytes without control characters",
    shortened(.0)
)]
pub struct InvalidActorKey(pub String);

fn shortened(key: &str) -> String {
    let escaped = key.chars().take(64).flat_map(char::escape_debug);
    escaped.collect()
}

impl ActorRef {
    /// The actor, if the key is valid.
    pub fn new(
        component: impl Into<String>,
        actor: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<Self, InvalidActorKey> {
        let key = key.into();
        let is_valid =
            (1..=MAX_ACTOR_KEY_BYTES).contains(&key.len()) && !key.chars().any(char::is_control);
        if !is_valid {
            return Err(InvalidActorKey(key));
        }
        Ok(Self {
            component: component.into(),
            actor: actor.into(),
            key,
        })
    }

    /// `component/actor`, by which invocations and receipts name the function.
    pub fn function(&self) -> String {
        format!("{}/{}", self.component, self.actor)
    }

    /// The shard of the tenant that holds the actor's state: a hash of its names, which no version may change. It is
    /// FNV-1a with the finalizer of MurmurHash3, without which keys that differ in their last bytes fall together.
    pub fn shard(&self) -> u32 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for name in [&self.component, &self.actor, &self.key] {
            for byte in name.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        ((hash ^ (hash >> 33)) % u64::from(SHARDS)) as u32
    }
}

impl fmt::Display for ActorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.component, self.actor, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fall_into_the_same_shards_for_ever() {
        let shard = |key: &str| ActorRef::new("bank", "account", key).map(|actor| actor.shard());
        let mut sizes = [0; SHARDS as usize];
        for key in 0..8_000 {
            sizes[shard(&format!("key-{key}")).expect("valid") as usize] += 1;
        }
        assert!(
            sizes.iter().all(|size| (800..1_200).contains(size)),
            "{sizes:?}"
        );
        let joined = ActorRef::new("a", "bc", "d").expect("valid");
        assert_ne!(joined, ActorRef::new("ab", "c", "d").expect("valid"));
    }

    #[test]
    fn keys_without_bounds_are_refused() {
        for key in ["", "a\nb", &"x".repeat(MAX_ACTOR_KEY_BYTES + 1)] {
            let refused = ActorRef::new("bank", "account", key).expect_err("refused");
            assert!(refused.to_string().contains("is not a key"), "{refused}");
        }
    }
}
