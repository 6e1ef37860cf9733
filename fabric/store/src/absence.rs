//! Tells objects that are not there from those that credentials do not allow.
//!
//! AWS answers 403 for an object that is not there, unless the credentials may list the whole bucket: those of a prefix
//! may not. But they may list the one key, which tells.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::pending::S3Uploads;
use crate::signed::{element, escaped, unescaped};

/// A bucket whose missing objects are `NotFound`, as far as its credentials allow to know.
#[derive(Debug)]
pub(crate) struct TellsAbsence {
    store: Arc<AmazonS3>,
    lists: Arc<S3Uploads>,
}

impl TellsAbsence {
    pub(crate) fn new(store: Arc<AmazonS3>, lists: Arc<S3Uploads>) -> Self {
        Self { store, lists }
    }

    /// Returns whether the bucket lists no such key. One that does not say so may have it.
    async fn lists_none(&self, path: &Path) -> bool {
        let key = escaped(path.as_ref());
        let query = format!("list-type=2&max-keys=1&prefix={key}");
        match self.lists.get(&query).await {
            Ok(text) => is_none(&text, path.as_ref()),
            Err(_) => false,
        }
    }
}

impl std::fmt::Display for TellsAbsence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.store, f)
    }
}

/// Returns whether a list of one key, the first with these letters, has another one or none.
fn is_none(text: &str, key: &str) -> bool {
    if !text.contains("<ListBucketResult") {
        return false;
    }
    element(text, "Key").is_none_or(|found| unescaped(found) != key)
}

#[async_trait]
impl ObjectStore for TellsAbsence {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.store.get_opts(location, options).await;
        let is_forbidden = matches!(got, Err(Error::PermissionDenied { .. }));
        match is_forbidden && self.lists_none(location).await {
            true => Err(Error::NotFound {
                path: location.to_string(),
                source: "the bucket lists no such key".into(),
            }),
            false => got,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_one_key_tells() {
        let list = |keys: &str| {
            format!(
                "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"a\">{keys}</ListBucketResult>"
            )
        };
        for (text, expected) in [
            (list("<KeyCount>0</KeyCount>"), true),
            (list("<Contents><Key>out/ab</Key></Contents>"), true),
            (list("<Contents><Key>out/a</Key></Contents>"), false),
            ("<html>It works!</html>".into(), false),
        ] {
            assert_eq!(is_none(&text, "out/a"), expected, "{text}");
        }
        let text = list("<Contents><Key>a&amp;b&lt;c</Key></Contents>");
        assert!(!is_none(&text, "a&b<c"));
    }
}
