//! Uploads that nobody has completed, as a bucket lists them: object_store signs requests, and has none for this.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use object_store::aws::{AmazonS3, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{
    HttpClient, HttpConnector, HttpRequest, HttpRequestBody, SpawnedReqwestConnector,
};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, MultipartId, Result};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::fault::Fault;
use crate::pause::pause;
use crate::signed::{answer, element, escaped, generic, unescaped};

/// Time for one list.
const LIST_WALL_MAX: Duration = Duration::from_secs(30);
/// Tries of one list whose failure may pass, and the time after which there is no other: object_store does not repeat
/// requests that are not its own.
const MAX_TRIES: u32 = 8;
const RETRY_WALL_MAX: Duration = Duration::from_secs(60);
/// Lists of one look; S3 gives a thousand uploads in each.
const MAX_LISTS: usize = 100;

/// A list of the uploads of a bucket that nobody has completed.
pub trait PendingUploads: Send + Sync {
    /// Lists the uploads with these first letters of their whole keys: each with its key and its id.
    fn uploads_of<'a>(&'a self, keys: &'a str) -> BoxFuture<'a, Result<Vec<(Path, MultipartId)>>>;
}

/// Uploads of a bucket of S3.
#[derive(Debug)]
pub(crate) struct S3Uploads {
    store: Arc<AmazonS3>,
    client: HttpClient,
}

impl S3Uploads {
    /// `options`: those of the store by their names, of which the HTTP client's count, such as `proxy_url`.
    pub(crate) fn new(
        store: Arc<AmazonS3>,
        io: &Handle,
        options: &[(&str, String)],
    ) -> Result<Self> {
        let default = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout(LIST_WALL_MAX);
        let named = options.iter();
        let options = named.fold(default, |options, (name, value)| {
            match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                Ok(AmazonS3ConfigKey::Client(key)) => options.with_config(key, value),
                _ => options,
            }
        });
        let client = SpawnedReqwestConnector::new(io.clone()).connect(&options)?;
        Ok(Self { store, client })
    }

    async fn list(&self, keys: &str) -> Result<Vec<(Path, MultipartId)>> {
        let mut uploads = Vec::new();
        let mut after = String::new();
        for _ in 0..MAX_LISTS {
            let query = format!("uploads=&prefix={}{after}", escaped(keys));
            let text = self.get(&query).await?;
            uploads.extend(parsed(&text));
            match next_page(&text) {
                Some(next) => after = next,
                None => return Ok(uploads),
            }
        }
        tracing::warn!(
            keys,
            n = uploads.len(),
            "a list of pending uploads is too long and was cut: have a rule of the bucket remove old ones"
        );
        Ok(uploads)
    }

    /// The bucket's answer to a query. It is asked again if a failure may pass.
    pub(crate) async fn get(&self, query: &str) -> Result<String> {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let asked = self.ask(query).await;
            let Err(error) = &asked else {
                return asked;
            };
            tries += 1;
            let passes = Fault::of(error).is_some_and(Fault::is_retryable);
            if !passes || tries >= MAX_TRIES || began.elapsed() >= RETRY_WALL_MAX {
                return asked;
            }
            pause(tries).await;
        }
    }

    async fn ask(&self, query: &str) -> Result<String> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        // A URL that is signed for the bucket says where it is, in whichever style, and in which region.
        let signed = self
            .store
            .signed_url(request.method().clone(), &Path::default(), LIST_WALL_MAX)
            .await?;
        let (bucket, region) =
            place(signed.as_str()).ok_or_else(|| generic("a signed URL has no region"))?;
        let uri = format!("{}?{query}", bucket.trim_end_matches('/'));
        *request.uri_mut() = uri.parse().map_err(|_| generic("the URL is wrong"))?;
        let credential = self.store.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", region).authorize(&mut request, None);
        answer(&self.client, request).await
    }
}

impl PendingUploads for S3Uploads {
    fn uploads_of<'a>(&'a self, keys: &'a str) -> BoxFuture<'a, Result<Vec<(Path, MultipartId)>>> {
        Box::pin(self.list(keys))
    }
}

/// URL of the bucket, and its region, out of a URL that was signed for it.
fn place(signed: &str) -> Option<(&str, &str)> {
    let (bucket, query) = signed.split_once('?')?;
    let mut pairs = query.split('&');
    let scope = pairs.find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
    // KEY/DATE/REGION/s3/aws4_request.
    Some((bucket, scope.split("%2F").nth(2)?))
}

/// The part of a query by which a list goes on that was cut. Not all servers name the upload beside the key.
fn next_page(text: &str) -> Option<String> {
    let marker = |name: &str| element(text, name).map(|marker| escaped(&unescaped(marker)));
    let key = marker("NextKeyMarker").filter(|_| element(text, "IsTruncated") == Some("true"))?;
    let id = marker("NextUploadIdMarker").filter(|id| !id.is_empty());
    let id = id.map_or_else(String::new, |id| format!("&upload-id-marker={id}"));
    Some(format!("&key-marker={key}{id}"))
}

/// The uploads of a list, without those whose keys are none of ours.
fn parsed(text: &str) -> Vec<(Path, MultipartId)> {
    let uploads = text.split("<Upload>").skip(1);
    let upload = |text: &str| {
        let key = unescaped(element(text, "Key")?);
        let id = unescaped(element(text, "UploadId")?);
        Some((Path::parse(key).ok()?, id))
    };
    uploads.filter_map(upload).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_uploads_are_read() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><IsTruncated>true</IsTruncated>\
            <NextKeyMarker>out/b</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker>\
            <Upload><Key>out/day=1/a.csv</Key><UploadId>1</UploadId><Initiator/></Upload>\
            <Upload><Key>out/b</Key><UploadId>2</UploadId></Upload>\
            <Upload><Key>a&amp;b</Key><UploadId>3</UploadId></Upload></ListMultipartUploadsResult>";
        let uploads = parsed(text);
        let uploads: Vec<_> = uploads
            .iter()
            .map(|(key, id)| (key.as_ref(), id.as_str()))
            .collect();
        let expected = [("out/day=1/a.csv", "1"), ("out/b", "2"), ("a&b", "3")];
        assert_eq!(uploads, expected);
    }

    #[test]
    fn a_list_that_was_cut_goes_on_behind_its_last_key() {
        let list = |is_cut: &str, id: &str| {
            next_page(&format!(
                "<IsTruncated>{is_cut}</IsTruncated><NextKeyMarker>out/a&amp;b</NextKeyMarker>{id}"
            ))
        };
        let key = "&key-marker=out%2Fa%26b".to_owned();
        let id = "<NextUploadIdMarker>2</NextUploadIdMarker>";
        let with_id = format!("{key}&upload-id-marker=2");
        assert_eq!(list("true", id), Some(with_id));
        let none = "<NextUploadIdMarker></NextUploadIdMarker>";
        assert_eq!(list("true", none), Some(key.clone()));
        assert_eq!(list("true", ""), Some(key));
        assert_eq!(list("false", id), None);
    }

    #[test]
    fn a_signed_url_names_bucket_and_region() {
        let url = "http://127.0.0.1:9000/lake/?X-Amz-Algorithm=AWS4-HMAC-SHA256&\
            X-Amz-Credential=KEY%2F20261130%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=1";
        let found = place(url);
        assert_eq!(found, Some(("http://127.0.0.1:9000/lake/", "eu-west-1")));
    }
}
