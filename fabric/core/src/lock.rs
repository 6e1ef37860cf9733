//! One way to lock, for all of Weft.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a holder has panicked: holders leave what they lock in order at every
/// step, and one that panicked must not take the others with it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutex_is_locked_after_its_holder_panicked() {
        let mutex = Mutex::new(1);
        let holder = std::panic::catch_unwind(|| {
            let _held = lock(&mutex);
            panic!("while it is held");
        });
        assert!(holder.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 1);
    }
}
