//! Stores: the one that keeps what the cluster has, and those whose objects jobs may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::Location;

/// Text that is not shown, such as a key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Settings of one store. They go from servers to their own children, and never into jobs or plans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSettings {
    /// Beginning of the store: `s3://bucket/prefix`, `gs://`, `az://`, a folder's `file://` or path.
    pub url: String,
    /// Address of a server other than the provider's, such as `http://127.0.0.1:9000`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Region of the bucket, of S3.
    #[serde(default)]
    pub region: Option<String>,
    /// Locations that jobs may use, with all that lies in them. Without any, `url` is the one.
    #[serde(default)]
    pub roots: Vec<String>,
    /// Role of S3 that executors work in, with credentials that expire and are for their part of the bucket alone.
    /// Without one, they get the credentials of the store.
    #[serde(default)]
    pub executor_role: Option<String>,
    /// Address of the service that gives credentials of the role: `endpoint`, or AWS's, without one.
    #[serde(default)]
    pub sts_endpoint: Option<String>,
    /// The provider's other options by their names, credentials among them.
    #[serde(default)]
    pub options: BTreeMap<String, Secret>,
}

impl StoreSettings {
    /// A store without options.
    pub fn of_url(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// Path of the folder that is the store, if it is one.
    pub fn folder(&self) -> Option<&std::path::Path> {
        if Location::is_one(&self.url) {
            return None;
        }
        let path = self.url.strip_prefix("file://").unwrap_or(&self.url);
        Some(std::path::Path::new(path))
    }
}

/// The stores of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stores {
    /// The cluster's own, which jobs may not use.
    pub own: StoreSettings,
    /// Those that jobs may use, by the names that settings give them.
    #[serde(default)]
    pub granted: BTreeMap<String, StoreSettings>,
}

impl Stores {
    /// A folder as the store, and no other.
    pub fn folder(path: &std::path::Path) -> Self {
        Self {
            own: StoreSettings::of_url(path.display().to_string()),
            granted: BTreeMap::new(),
        }
    }

    /// All stores, by their names in settings.
    pub fn named(&self) -> impl Iterator<Item = (String, &StoreSettings)> {
        let granted = self.granted.iter();
        let granted = granted.map(|(name, settings)| (format!("store.{name}"), settings));
        std::iter::once(("store".to_owned(), &self.own)).chain(granted)
    }
}

/// Credentials of S3 that expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCredential {
    /// Name of the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Secret,
    /// Says which session the key is of.
    pub session_token: Secret,
    /// When it expires, in Unix milliseconds.
    pub expires_ms: u64,
}

/// Credentials of one executor, for the stores whose settings have an `executor_role`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorCredentials {
    /// For the cluster's own store.
    #[serde(default)]
    pub own: Option<SessionCredential>,
    /// For stores that jobs may use, by their names.
    #[serde(default)]
    pub granted: BTreeMap<String, SessionCredential>,
}

impl ExecutorCredentials {
    /// When the first of them expires, in Unix milliseconds. Nothing if there are none.
    pub fn expire_ms(&self) -> Option<u64> {
        let all = self.own.iter().chain(self.granted.values());
        all.map(|one| one.expires_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_sent_and_not_shown() {
        let mut store = StoreSettings::of_url("s3://lake/");
        let secret = Secret::new("hush");
        store.options.insert("secret_access_key".into(), secret);
        assert!(!format!("{store:?}").contains("hush"));
        let sent = serde_json::to_string(&store).expect("JSON");
        let come: StoreSettings = serde_json::from_str(&sent).expect("JSON");
        assert_eq!(come, store);
        assert_eq!(come.options["secret_access_key"].reveal(), "hush");
    }

    #[test]
    fn folders_are_paths_or_urls_of_files() {
        let folder = |url: &str| {
            let store = StoreSettings::of_url(url);
            store.folder().map(|path| path.display().to_string())
        };
        assert_eq!(folder("file:///shared"), Some("/shared".into()));
        assert_eq!(folder("/srv/weft"), Some("/srv/weft".into()));
        assert_eq!(folder("s3://bucket/prefix"), None);
    }
}
