//! Credentials that an executor has been given: the newest of them signs each request.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use weft_core::lock;
use weft_protocol::ExecutorCredentials;

/// Tells the Unix time in milliseconds.
type Clock = fn() -> u64;

/// Credentials of the process. Clones share them.
#[derive(Debug, Clone)]
pub struct HeldCredentials {
    newest: Arc<Mutex<ExecutorCredentials>>,
    clock: Clock,
}

impl HeldCredentials {
    /// Holds the first credentials. `clock` tells the Unix time in milliseconds.
    pub fn new(first: ExecutorCredentials, clock: Clock) -> Self {
        Self {
            newest: Arc::new(Mutex::new(first)),
            clock,
        }
    }

    /// Uses newer ones for requests from now on.
    pub fn replace(&self, newer: ExecutorCredentials) {
        *lock(&self.newest) = newer;
    }

    /// Provides credentials of one store: the cluster's own, or one that jobs may use by its name.
    pub(crate) fn provider(&self, store: Option<&str>) -> AwsCredentialProvider {
        Arc::new(Provider {
            held: self.clone(),
            store: store.map(str::to_owned),
        })
    }
}

/// Provides the newest credentials of one store.
#[derive(Debug)]
struct Provider {
    held: HeldCredentials,
    store: Option<String>,
}

/// There are no credentials, or they have expired without newer ones.
#[derive(Debug, thiserror::Error)]
#[error("the node has not renewed the credentials of its executors")]
pub(crate) struct NotRenewed;

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = (self.held.clock)();
        let newest = lock(&self.held.newest);
        let credential = match &self.store {
            None => newest.own.as_ref(),
            Some(name) => newest.granted.get(name),
        };
        let valid = credential.filter(|credential| credential.expires_ms > now);
        let credential = valid.ok_or_else(|| object_store::Error::Generic {
            store: "S3",
            source: Box::new(NotRenewed),
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: credential.access_key_id.clone(),
            secret_key: credential.secret_access_key.reveal().to_owned(),
            token: Some(credential.session_token.reveal().to_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_protocol::{Secret, SessionCredential};

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn until(expires_ms: u64, key: &str) -> ExecutorCredentials {
        let credential = SessionCredential {
            access_key_id: key.to_owned(),
            secret_access_key: Secret::new("secret"),
            session_token: Secret::new("token"),
            expires_ms,
        };
        ExecutorCredentials {
            own: None,
            granted: BTreeMap::from([("lake".to_owned(), credential)]),
        }
    }

    #[tokio::test]
    async fn requests_are_signed_with_the_newest_credentials() {
        let held = HeldCredentials::new(until(2_000, "first"), || 1_000);
        let provider = held.provider(Some("lake"));
        let key = async || {
            provider
                .get_credential()
                .await
                .map(|one| one.key_id.clone())
        };
        assert_eq!(key().await.expect("it is valid"), "first");
        held.replace(until(3_000, "second"));
        assert_eq!(key().await.expect("it is valid"), "second");
    }

    #[tokio::test]
    async fn expired_credentials_are_named_and_tried_again() {
        let held = HeldCredentials::new(until(1_000, "first"), || 1_000);
        for store in [Some("lake"), None] {
            let failed = held.provider(store).get_credential().await;
            let error = Error::of_store("s3://lake/a", failed.expect_err("it has expired"));
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("have expired"), "{error}");
        }
        held.replace(until(2_000, "second"));
        let renewed = held.provider(Some("lake")).get_credential().await;
        assert_eq!(renewed.expect("it is valid").key_id, "second");
    }
}
