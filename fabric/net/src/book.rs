//! Addresses of the controllers, as a process knows them: those of its settings, and those that were found out since.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Addresses by number of the controller. Clones are the same book.
#[derive(Debug, Clone)]
pub struct Book(Arc<watch::Sender<BTreeMap<u64, String>>>);

impl Book {
    /// A book with these addresses.
    pub fn new(addresses: BTreeMap<u64, String>) -> Self {
        Self(Arc::new(watch::Sender::new(addresses)))
    }

    /// Adds addresses, or changes them. None is forgotten: whoever is gone may come back.
    pub fn learn(&self, found: BTreeMap<u64, String>) {
        self.0.send_if_modified(|addresses| {
            let mut changed = false;
            for (member, address) in found {
                if addresses.get(&member) != Some(&address) {
                    tracing::info!(member, address, "a controller's address is known");
                    addresses.insert(member, address);
                    changed = true;
                }
            }
            changed
        });
    }

    /// Returns whether there is an address of a controller other than this one.
    #[cfg(feature = "etcd")]
    pub(crate) fn has_others(&self, me: Option<u64>) -> bool {
        self.0.borrow().keys().any(|member| Some(*member) != me)
    }

    /// The address of a controller.
    pub(crate) fn address(&self, member: u64) -> Option<String> {
        self.0.borrow().get(&member).cloned()
    }

    /// Sees each controller once, as soon as its address is known.
    pub(crate) fn members(&self) -> NewMembers {
        NewMembers {
            addresses: self.0.subscribe(),
            seen: Vec::new(),
        }
    }
}

/// Controllers in the order in which their addresses become known.
pub(crate) struct NewMembers {
    addresses: watch::Receiver<BTreeMap<u64, String>>,
    seen: Vec<u64>,
}

impl NewMembers {
    /// Those that have become known since the last call; none if there are none.
    pub(crate) fn known(&mut self) -> Vec<u64> {
        let addresses = self.addresses.borrow_and_update();
        let new = addresses
            .keys()
            .filter(|member| !self.seen.contains(member));
        let new: Vec<u64> = new.copied().collect();
        self.seen.extend(&new);
        new
    }

    /// Waits until addresses have changed. Errors: the book is gone.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.addresses.changed().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_seen_once_and_their_addresses_change() {
        let of = |member: u64, address: &str| BTreeMap::from([(member, address.to_owned())]);
        let book = Book::new(of(1, "a"));
        let mut members = book.members();
        assert_eq!(members.known(), [1]);
        book.learn(of(2, "b"));
        book.learn(of(1, "c"));
        assert_eq!(members.known(), [2]);
        assert!(members.known().is_empty());
        assert_eq!(book.address(1).as_deref(), Some("c"));
        assert_eq!(book.address(3), None);
    }
}
