//! A bucket of an object store that a server elsewhere keeps: S3, Google Cloud Storage, Azure Blob Storage.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectStore, RetryConfig};
use tokio::runtime::Handle;
use weft_core::{Location, StoreKind};
use weft_protocol::{Secret, StoreSettings};

use crate::absence::TellsAbsence;
use crate::error::{Error, Result};
use crate::pending::{PendingUploads, S3Uploads};
use crate::requests::Requests;

/// Time for a connection to a store.
const CONNECT_WALL_MAX: Duration = Duration::from_secs(5);
/// Time for one request with its body, which is of a few megabytes.
const REQUEST_WALL_MAX: Duration = Duration::from_secs(30);
/// Bytes that one request fetches of an object that is fetched whole: they must come within [`REQUEST_WALL_MAX`].
const FETCH_BYTES: u64 = 4 << 20;
/// Repetitions of one request that failed: with their pauses they outlast the restart of a store, of some 20 seconds.
const RETRIES_MAX: usize = 10;
/// Time after which a request is not repeated any more.
const RETRY_WALL_MAX: Duration = Duration::from_secs(60);
/// The same of a check, for which somebody waits.
const CHECK_RETRIES_MAX: usize = 2;
const CHECK_RETRY_WALL_MAX: Duration = Duration::from_secs(5);
/// Pauses between two tries: the first one, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Longest pause as a multiple of the one before it. Each is drawn between the first one and that, so that with 2 they
/// would hardly grow.
const BACKOFF_GROWTH: f64 = 8.0;
/// Says why Azure's emulator is not named twice: object_store would go to the address that it knows.
const EMULATOR_HAS_AN_ADDRESS: &str = "`use_emulator` means an address of its own, and `endpoint` would not be used: \
     leave `use_emulator` out, set `account_name` and `account_key`, and let `endpoint` end with the account's name, as \
     in `http://127.0.0.1:10000/devstoreaccount1`";

/// How long a request is repeated that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until a store has restarted.
    Work,
    /// Once or twice, for a check of the store.
    Check,
}

impl Patience {
    fn retry(self) -> RetryConfig {
        let (max_retries, retry_timeout) = match self {
            Self::Work => (RETRIES_MAX, RETRY_WALL_MAX),
            Self::Check => (CHECK_RETRIES_MAX, CHECK_RETRY_WALL_MAX),
        };
        RetryConfig {
            max_retries,
            retry_timeout,
            backoff: BackoffConfig {
                init_backoff: BACKOFF_MIN,
                max_backoff: BACKOFF_MAX,
                base: BACKOFF_GROWTH,
            },
        }
    }
}

/// A bucket, and the beginning of the keys that are ours. Clones share it.
#[derive(Clone)]
pub struct Remote {
    /// Objects of the bucket by their whole keys: those of [`Self::path`].
    pub objects: Arc<dyn ObjectStore>,
    /// Uploads in parts, of whole keys as well.
    pub uploads: Arc<dyn MultipartStore>,
    /// Lists uploads that nobody has completed, of stores that can.
    pub pending: Option<Arc<dyn PendingUploads>>,
    /// Beginning of the keys that are ours.
    pub prefix: Path,
    /// The beginning of the store, for people: `s3://bucket/prefix`.
    location: Location,
    /// The runtime that drives the store's connections.
    io: Handle,
    /// Requests that were sent, by kind.
    requests: Arc<Requests>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote")
            .field(&self.location.to_string())
            .finish()
    }
}

impl Remote {
    /// Opens a bucket; nothing is sent yet. The runtime that this is called in drives its connections, so it must not
    /// be one whose threads wait for them.
    ///
    /// Errors: `Settings` if the URL, an option or a credential is wrong.
    pub fn open(settings: &StoreSettings) -> Result<Self> {
        Self::open_with(settings, None, Patience::Work)
    }

    /// The same. `held`: credentials of an executor, which it uses if settings name a role for executors.
    pub(crate) fn open_with(
        settings: &StoreSettings,
        held: Option<AwsCredentialProvider>,
        patience: Patience,
    ) -> Result<Self> {
        let wrong = |what: String| Error::settings(&settings.url, what);
        let location = Location::parse(&settings.url).map_err(wrong)?;
        let prefix = Path::parse(&location.key).map_err(|error| wrong(error.to_string()))?;
        let io = Handle::current();
        let mut pending = None;
        let (objects, uploads) = match location.kind {
            StoreKind::S3 => {
                let builder = s3_builder(settings, &location, &io)?;
                let mut builder = builder.with_retry(patience.retry());
                if let Some(held) = held.filter(|_| settings.executor_role.is_some()) {
                    builder = builder.with_credentials(held);
                }
                let store = Arc::new(builder.build().map_err(refused(settings))?);
                let lists = S3Uploads::new(Arc::clone(&store), &io, &options(settings));
                let lists = lists.map_err(refused(settings))?;
                let lists = Arc::new(lists);
                pending = Some(Arc::clone(&lists) as Arc<dyn PendingUploads>);
                (
                    Arc::new(TellsAbsence::new(Arc::clone(&store), lists)) as Arc<dyn ObjectStore>,
                    store as Arc<dyn MultipartStore>,
                )
            }
            StoreKind::Gcs => shared(gcs(settings, &location, &io, patience)?),
            StoreKind::Azure => shared(azure(settings, &location, &io, patience)?),
        };
        Ok(Self {
            objects,
            uploads,
            pending,
            prefix,
            location,
            io,
            requests: Arc::default(),
        })
    }

    /// A store of the process' memory, for tests.
    pub fn in_memory(url: &str) -> Result<Self> {
        let wrong = |what: String| Error::settings(url, what);
        let location = Location::parse(url).map_err(wrong)?;
        let prefix = Path::parse(&location.key).map_err(|error| wrong(error.to_string()))?;
        let (objects, uploads) = shared(object_store::memory::InMemory::new());
        Ok(Self {
            objects,
            uploads,
            pending: None,
            prefix,
            location,
            io: Handle::current(),
            requests: Arc::default(),
        })
    }

    /// The beginning of the store.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The whole key of one of ours, which follows the prefix.
    pub fn path(&self, key: &str) -> Path {
        let parts = Path::from(key);
        self.prefix.parts().chain(parts.parts()).collect()
    }

    /// One of our keys as people read it: `s3://bucket/prefix/key`.
    pub fn uri(&self, key: &str) -> String {
        self.uri_of(&self.path(key))
    }

    /// A whole key as people read it.
    pub fn uri_of(&self, path: &Path) -> String {
        self.location.with_key(path.as_ref()).to_string()
    }

    /// Requests that were sent.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The same bucket with counters of its own.
    pub(crate) fn metered(&self, requests: Arc<Requests>) -> Self {
        Self {
            requests,
            ..self.clone()
        }
    }

    /// The runtime that drives the store's connections.
    pub(crate) fn io(&self) -> &Handle {
        &self.io
    }

    /// The error of a request about a whole key.
    pub fn error(&self, path: &Path, source: object_store::Error) -> Error {
        Error::of_store(self.uri_of(path), source)
    }
}

/// One store as the two interfaces that object_store has.
fn shared<T: ObjectStore + MultipartStore>(
    store: T,
) -> (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) {
    let store = Arc::new(store);
    (
        Arc::clone(&store) as Arc<dyn ObjectStore>,
        store as Arc<dyn MultipartStore>,
    )
}

/// The ranges in which an object of this size is fetched; none of an empty one.
pub(crate) fn fetch_ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    let starts = (0..size.div_ceil(FETCH_BYTES)).map(|n| n * FETCH_BYTES);
    starts.map(move |start| start..size.min(start + FETCH_BYTES))
}

/// Options of a request for a range. `e_tag`: fails if the object is another one by now.
pub(crate) fn range_of(range: Range<u64>, e_tag: Option<String>) -> GetOptions {
    GetOptions {
        range: Some(GetRange::Bounded(range)),
        if_match: e_tag,
        ..GetOptions::default()
    }
}

/// Options of the HTTP client that settings need not name, and those that they do.
fn options(settings: &StoreSettings) -> Vec<(&str, String)> {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let mut options = vec![
        ("connect_timeout", seconds(CONNECT_WALL_MAX)),
        ("timeout", seconds(REQUEST_WALL_MAX)),
    ];
    // Whoever writes `http://` into the settings means it.
    if let Some("http") = settings
        .endpoint
        .as_deref()
        .and_then(|endpoint| endpoint.split_once("://"))
        .map(|(scheme, _)| scheme)
    {
        options.push(("allow_http", "true".into()));
    }
    let named = settings.options.iter();
    options.extend(named.map(|(name, value)| (name.as_str(), value.reveal().to_owned())));
    options
}

/// Applies options by their names to a builder. Errors: one that the provider does not have.
fn configured<B, K: FromStr>(
    settings: &StoreSettings,
    builder: B,
    with: impl Fn(B, K, String) -> B,
) -> Result<B> {
    options(settings)
        .into_iter()
        .try_fold(builder, |builder, (name, value)| {
            let key = name.to_ascii_lowercase().parse::<K>().map_err(|_| {
                let what = format!("`{name}` is not an option of this kind of store");
                Error::settings(&settings.url, what)
            })?;
            Ok(with(builder, key, value))
        })
}

/// The error of a builder.
fn refused(settings: &StoreSettings) -> impl FnOnce(object_store::Error) -> Error + '_ {
    |error| Error::settings(&settings.url, error.to_string())
}

/// A client of S3 as settings say.
pub(crate) fn s3_builder(
    settings: &StoreSettings,
    location: &Location,
    io: &Handle,
) -> Result<AmazonS3Builder> {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_retry(Patience::Work.retry())
        .with_http_connector(SpawnedReqwestConnector::new(io.clone()));
    let with = |builder: AmazonS3Builder, key: AmazonS3ConfigKey, value: String| {
        builder.with_config(key, value)
    };
    let mut builder = configured(settings, builder, with)?;
    // What settings say goes over what the environment does.
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    Ok(builder)
}

fn gcs(
    settings: &StoreSettings,
    location: &Location,
    io: &Handle,
    patience: Patience,
) -> Result<object_store::gcp::GoogleCloudStorage> {
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&location.bucket)
        .with_retry(patience.retry())
        .with_http_connector(SpawnedReqwestConnector::new(io.clone()));
    let with = |builder: GoogleCloudStorageBuilder, key: GoogleConfigKey, value: String| {
        builder.with_config(key, value)
    };
    let mut builder = configured(settings, builder, with)?;
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder.build().map_err(refused(settings))
}

fn azure(
    settings: &StoreSettings,
    location: &Location,
    io: &Handle,
    patience: Patience,
) -> Result<object_store::azure::MicrosoftAzure> {
    let builder = MicrosoftAzureBuilder::new()
        .with_container_name(&location.bucket)
        .with_retry(patience.retry())
        .with_http_connector(SpawnedReqwestConnector::new(io.clone()));
    let with = |builder: MicrosoftAzureBuilder, key: AzureConfigKey, value: String| {
        builder.with_config(key, value)
    };
    let mut builder = configured(settings, builder, with)?;
    if let Some(endpoint) = &settings.endpoint {
        let emulates = builder.get_config_value(&AzureConfigKey::UseEmulator);
        if emulates.is_some_and(|emulates| !emulates.eq_ignore_ascii_case("false")) {
            return Err(Error::settings(&settings.url, EMULATOR_HAS_AN_ADDRESS));
        }
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build().map_err(refused(settings))
}

/// Returns whether the name of an option, in small letters, is one of credentials.
fn is_credential(kind: StoreKind, name: &str) -> bool {
    let credentials: &[&str] = match kind {
        StoreKind::S3 => &["access_key_id", "secret_access_key", "token"],
        StoreKind::Gcs => &["service_account", "application_credentials"],
        StoreKind::Azure => &["access_key", "account_key", "sas", "token", "client_"],
    };
    credentials.iter().any(|part| name.contains(part))
}

/// Returns whether settings hold credentials of a bucket. Without, those of the instance's role are used, if any.
pub fn has_credentials(settings: &StoreSettings) -> bool {
    let location = Location::parse(&settings.url);
    let mut names = settings.options.keys();
    location.is_ok_and(|location| names.any(|name| is_credential(location.kind, name)))
}

/// Adds what the environment of a server says of a store's credentials to its settings, which go first. Of other
/// variables nothing is taken.
pub fn with_environment(
    mut settings: StoreSettings,
    variables: impl Iterator<Item = (String, String)>,
) -> StoreSettings {
    let Ok(location) = Location::parse(&settings.url) else {
        return settings;
    };
    let prefix = match location.kind {
        StoreKind::S3 => "AWS_",
        StoreKind::Gcs => "GOOGLE_",
        StoreKind::Azure => "AZURE_",
    };
    let is_credential = |name: &str| is_credential(location.kind, name);
    // A key of the settings and a token of the environment would not fit each other.
    let has_credentials = has_credentials(&settings);
    for (name, value) in variables {
        let key = name.to_ascii_lowercase();
        let is_option = name.starts_with(prefix)
            && match location.kind {
                StoreKind::S3 => matches!(
                    AmazonS3ConfigKey::from_str(&key),
                    Ok(key) if key != AmazonS3ConfigKey::Bucket
                ),
                StoreKind::Gcs => matches!(
                    GoogleConfigKey::from_str(&key),
                    Ok(key) if key != GoogleConfigKey::Bucket
                ),
                StoreKind::Azure => matches!(
                    AzureConfigKey::from_str(&key),
                    Ok(key) if key != AzureConfigKey::ContainerName
                ),
            };
        let is_hidden = has_credentials && is_credential(&key);
        if is_option && !is_hidden {
            settings
                .options
                .entry(key)
                .or_insert_with(|| Secret::new(value));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lake() -> StoreSettings {
        let mut settings = StoreSettings::of_url("s3://lake/raw/");
        settings.endpoint = Some("http://127.0.0.1:1".into());
        settings
    }

    #[test]
    fn objects_are_fetched_in_ranges() {
        assert_eq!(fetch_ranges(0).count(), 0);
        let ranges: Vec<_> = fetch_ranges(2 * FETCH_BYTES + 1).collect();
        let last = 2 * FETCH_BYTES;
        assert_eq!(ranges[0], 0..FETCH_BYTES);
        assert_eq!(ranges[2], last..last + 1);
        assert_eq!(fetch_ranges(FETCH_BYTES).count(), 1);
    }

    #[tokio::test]
    async fn keys_follow_the_prefix() {
        let remote = Remote::open(&lake()).expect("it opens");
        assert_eq!(remote.path("jobs/a/0").as_ref(), "raw/jobs/a/0");
        assert_eq!(remote.uri("jobs/a/0"), "s3://lake/raw/jobs/a/0");
        let root = Remote::open(&StoreSettings::of_url("s3://lake")).expect("it opens");
        assert_eq!(root.path("a").as_ref(), "a");
    }

    #[tokio::test]
    async fn options_that_nobody_has_are_refused() {
        let mut settings = lake();
        settings
            .options
            .insert("acces_key_id".into(), Secret::new("A"));
        let error = Remote::open(&settings).expect_err("it is refused");
        let text = error.to_string();
        assert!(
            text.contains("`acces_key_id`") && text.contains("s3://lake/raw/"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn the_emulator_of_azure_is_not_named_twice() {
        let mut settings = StoreSettings::of_url("az://lake");
        let emulate = Secret::new("true");
        settings.options.insert("use_emulator".into(), emulate);
        Remote::open(&settings).expect("it has an address of its own");
        settings.endpoint = Some("http://127.0.0.1:1/me".into());
        let error = Remote::open(&settings).expect_err("whose address is meant?");
        assert!(error.to_string().contains("`endpoint`"), "{error}");
        settings.options.clear();
        for (name, value) in [("account_name", "me"), ("account_key", "aGVsbG8=")] {
            settings.options.insert(name.into(), Secret::new(value));
        }
        Remote::open(&settings).expect("the address is that of the settings");
    }

    #[test]
    fn the_environment_gives_credentials_that_settings_do_not() {
        let variables = |of: &[(&str, &str)]| {
            let of = of.iter();
            let of = of.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            of.collect::<Vec<_>>().into_iter()
        };
        let all = [
            ("AWS_ACCESS_KEY_ID", "environment"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_BUCKET", "other"),
            ("AWS_PROFILE", "me"),
            ("HOME", "/root"),
        ];
        let taken = with_environment(lake(), variables(&all));
        let names: Vec<&str> = taken.options.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["aws_access_key_id", "aws_region", "aws_session_token"]
        );
        let mut own = lake();
        own.options
            .insert("access_key_id".into(), Secret::new("settings"));
        let taken = with_environment(own, variables(&all));
        let names: Vec<&str> = taken.options.keys().map(String::as_str).collect();
        assert_eq!(names, ["access_key_id", "aws_region"]);
    }
}
