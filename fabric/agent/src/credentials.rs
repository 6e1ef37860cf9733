//! Credentials of an executor: asked for before it starts, and renewed while it works.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use weft_core::{Epoch, TenantId};
use weft_protocol::{ExecutorCredentials, Stores};
use weft_store::Issuer;

/// Pause between two tries to renew credentials.
const RETRY_MS: u64 = 30_000;
/// Letters of a session's name, as AWS bounds them.
const MAX_SESSION_LETTERS: usize = 64;

/// Source of the credentials of one executor.
#[derive(Debug, Clone)]
pub(crate) struct CredentialsOf {
    issuer: Arc<Issuer>,
    session: String,
    tenant: TenantId,
}

impl CredentialsOf {
    /// Those of an executor of a tenant. Logs of the service that gives them name both.
    pub(crate) fn new(issuer: Arc<Issuer>, tenant: &TenantId, epoch: Epoch) -> Self {
        let mut session = format!("weft-{epoch}-{tenant}");
        session.truncate(MAX_SESSION_LETTERS);
        Self {
            issuer,
            session,
            tenant: tenant.clone(),
        }
    }

    /// The tenant that the executor works for.
    pub(crate) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The stores as the executor is told of them.
    pub(crate) fn stores(&self) -> &Stores {
        self.issuer.stores()
    }

    /// Gets credentials. None are asked for if no store has a role for executors.
    pub(crate) async fn issue(&self) -> anyhow::Result<ExecutorCredentials> {
        let issued = self.issuer.issue(&self.session, &self.tenant).await;
        issued.context("the executor gets no credentials")
    }
}

/// Says when credentials are renewed: when half of their time is over, so that a service which fails meanwhile is asked
/// many times.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    due_ms: u64,
}

impl Renewal {
    /// The renewal of credentials that came at a Unix time. Nothing if they do not expire.
    pub(crate) fn of(credentials: &ExecutorCredentials, now_ms: u64) -> Option<Self> {
        let left = credentials.expire_ms()?.saturating_sub(now_ms);
        let due_ms = now_ms.saturating_add((left / 2).max(RETRY_MS));
        Some(Self { due_ms })
    }

    /// Time until the next try.
    pub(crate) fn due_in(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.due_ms.saturating_sub(now_ms))
    }

    /// Newer credentials came.
    pub(crate) fn renewed(&mut self, credentials: &ExecutorCredentials, now_ms: u64) {
        match Self::of(credentials, now_ms) {
            Some(next) => *self = next,
            None => self.failed(now_ms),
        }
    }

    /// None came.
    pub(crate) fn failed(&mut self, now_ms: u64) {
        self.due_ms = now_ms.saturating_add(RETRY_MS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_protocol::{Secret, SessionCredential};

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn until(expire_ms: &[u64]) -> ExecutorCredentials {
        let credential = |expires_ms: u64| SessionCredential {
            access_key_id: "key".into(),
            secret_access_key: Secret::new("secret"),
            session_token: Secret::new("token"),
            expires_ms,
        };
        let named = expire_ms.iter().enumerate();
        let named = named.map(|(name, expires_ms)| (name.to_string(), credential(*expires_ms)));
        ExecutorCredentials {
            own: None,
            granted: BTreeMap::from_iter(named),
        }
    }

    #[test]
    fn half_of_the_time_is_left_for_tries() {
        let now = 1_000;
        let first = until(&[now + 2 * HOUR_MS, now + HOUR_MS]);
        let mut renewal = Renewal::of(&first, now).expect("they expire");
        assert_eq!(renewal.due_in(now), Duration::from_millis(HOUR_MS / 2));
        let mut now = now + HOUR_MS / 2;
        let mut tries = 0;
        while now < first.expire_ms().expect("they expire") {
            assert_eq!(renewal.due_in(now), Duration::ZERO);
            renewal.failed(now);
            assert_eq!(renewal.due_in(now), Duration::from_millis(RETRY_MS));
            now += RETRY_MS;
            tries += 1;
        }
        assert_eq!(tries, 60);
        // Those that come late count from then.
        renewal.renewed(&until(&[now + HOUR_MS]), now);
        assert_eq!(renewal.due_in(now), Duration::from_millis(HOUR_MS / 2));
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_ask_all_the_time() {
        let expired = until(&[1_000]);
        let renewal = Renewal::of(&expired, HOUR_MS).expect("they expire");
        assert_eq!(renewal.due_in(HOUR_MS), Duration::from_millis(RETRY_MS));
    }

    #[test]
    fn without_credentials_nothing_is_renewed() {
        assert_eq!(Renewal::of(&ExecutorCredentials::default(), 0), None);
    }
}
