//! Shows a store of object_store 0.13, which the rest of Weft has, as one of 0.14, which SlateDB takes.
//!
//! So credentials, roles, retries and connections of shards are those of all other objects. Extensions and tags are not
//! passed on: SlateDB sets none that the stores heed.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store as old;
use object_store_slate as new;

/// A store of 0.13.
#[derive(Debug)]
pub(crate) struct Adapter(Arc<dyn old::ObjectStore>);

impl Adapter {
    pub(crate) fn new(store: Arc<dyn old::ObjectStore>) -> Self {
        Self(store)
    }
}

impl std::fmt::Display for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

#[async_trait]
impl new::ObjectStore for Adapter {
    async fn put_opts(
        &self,
        location: &new::path::Path,
        payload: new::PutPayload,
        options: new::PutOptions,
    ) -> new::Result<new::PutResult> {
        let options = old::PutOptions {
            mode: old_mode(options.mode),
            attributes: old_attributes(&options.attributes),
            ..old::PutOptions::default()
        };
        let location = old_path(location)?;
        let put = self.0.put_opts(&location, old_payload(payload), options);
        put.await.map(new_put).map_err(new_error)
    }

    async fn put_multipart_opts(
        &self,
        location: &new::path::Path,
        options: new::PutMultipartOptions,
    ) -> new::Result<Box<dyn new::MultipartUpload>> {
        let options = old::PutMultipartOptions {
            attributes: old_attributes(&options.attributes),
            ..old::PutMultipartOptions::default()
        };
        let location = old_path(location)?;
        let started = self.0.put_multipart_opts(&location, options).await;
        let upload = started.map_err(new_error)?;
        Ok(Box::new(Upload(upload)))
    }

    async fn get_opts(
        &self,
        location: &new::path::Path,
        options: new::GetOptions,
    ) -> new::Result<new::GetResult> {
        let location = old_path(location)?;
        let found = self.0.get_opts(&location, old_get(options)).await;
        new_found(found.map_err(new_error)?)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, new::Result<new::path::Path>>,
    ) -> BoxStream<'static, new::Result<new::path::Path>> {
        let locations = locations.map(|location| match location {
            Ok(location) => old_parsed(&location),
            Err(error) => Err(old_error(error)),
        });
        let deleted = self.0.delete_stream(locations.boxed());
        let deleted = deleted.map(|location| new_path(&location.map_err(new_error)?));
        deleted.boxed()
    }

    fn list(
        &self,
        prefix: Option<&new::path::Path>,
    ) -> BoxStream<'static, new::Result<new::ObjectMeta>> {
        match prefix.map(old_path).transpose() {
            Ok(prefix) => new_list(self.0.list(prefix.as_ref())),
            Err(error) => failed_list(error),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&new::path::Path>,
        offset: &new::path::Path,
    ) -> BoxStream<'static, new::Result<new::ObjectMeta>> {
        match (prefix.map(old_path).transpose(), old_path(offset)) {
            (Ok(prefix), Ok(offset)) => new_list(self.0.list_with_offset(prefix.as_ref(), &offset)),
            (Err(error), _) | (_, Err(error)) => failed_list(error),
        }
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&new::path::Path>,
    ) -> new::Result<new::ListResult> {
        let prefix = prefix.map(old_path).transpose()?;
        let listed = self.0.list_with_delimiter(prefix.as_ref()).await;
        let listed = listed.map_err(new_error)?;
        let prefixes = listed.common_prefixes.iter().map(new_path);
        Ok(new::ListResult {
            common_prefixes: prefixes.collect::<new::Result<_>>()?,
            objects: listed
                .objects
                .into_iter()
                .map(new_meta)
                .collect::<new::Result<_>>()?,
            extensions: new::Extensions::default(),
        })
    }

    async fn copy_opts(
        &self,
        from: &new::path::Path,
        to: &new::path::Path,
        options: new::CopyOptions,
    ) -> new::Result<()> {
        let mode = match options.mode {
            new::CopyMode::Overwrite => old::CopyMode::Overwrite,
            new::CopyMode::Create => old::CopyMode::Create,
        };
        let options = old::CopyOptions {
            mode,
            ..old::CopyOptions::default()
        };
        let (from, to) = (old_path(from)?, old_path(to)?);
        let copied = self.0.copy_opts(&from, &to, options).await;
        copied.map_err(new_error)
    }
}

/// An upload in parts.
#[derive(Debug)]
struct Upload(Box<dyn old::MultipartUpload>);

#[async_trait]
impl new::MultipartUpload for Upload {
    fn put_part(&mut self, data: new::PutPayload) -> new::UploadPart {
        let sent = self.0.put_part(old_payload(data));
        sent.map(|sent| sent.map_err(new_error)).boxed()
    }

    async fn complete(&mut self) -> new::Result<new::PutResult> {
        let completed = self.0.complete().await;
        completed.map(new_put).map_err(new_error)
    }

    async fn abort(&mut self) -> new::Result<()> {
        self.0.abort().await.map_err(new_error)
    }
}

fn old_parsed(path: &new::path::Path) -> old::Result<old::path::Path> {
    Ok(old::path::Path::parse(path.as_ref())?)
}

fn old_path(path: &new::path::Path) -> new::Result<old::path::Path> {
    old_parsed(path).map_err(new_error)
}

fn new_path(path: &old::path::Path) -> new::Result<new::path::Path> {
    Ok(new::path::Path::parse(path.as_ref())?)
}

fn old_payload(payload: new::PutPayload) -> old::PutPayload {
    payload.into_iter().collect()
}

fn old_mode(mode: new::PutMode) -> old::PutMode {
    match mode {
        new::PutMode::Overwrite => old::PutMode::Overwrite,
        new::PutMode::Create => old::PutMode::Create,
        new::PutMode::Update(version) => old::PutMode::Update(old::UpdateVersion {
            e_tag: version.e_tag,
            version: version.version,
        }),
    }
}

fn old_get(options: new::GetOptions) -> old::GetOptions {
    let range = options.range.map(|range| match range {
        new::GetRange::Bounded(range) => old::GetRange::Bounded(range),
        new::GetRange::Offset(from) => old::GetRange::Offset(from),
        new::GetRange::Suffix(bytes) => old::GetRange::Suffix(bytes),
    });
    old::GetOptions {
        if_match: options.if_match,
        if_none_match: options.if_none_match,
        if_modified_since: options.if_modified_since,
        if_unmodified_since: options.if_unmodified_since,
        range,
        version: options.version,
        head: options.head,
        ..old::GetOptions::default()
    }
}

fn new_put(put: old::PutResult) -> new::PutResult {
    new::PutResult {
        e_tag: put.e_tag,
        version: put.version,
        extensions: new::Extensions::default(),
    }
}

fn new_meta(meta: old::ObjectMeta) -> new::Result<new::ObjectMeta> {
    Ok(new::ObjectMeta {
        location: new_path(&meta.location)?,
        last_modified: meta.last_modified,
        size: meta.size,
        e_tag: meta.e_tag,
        version: meta.version,
    })
}

fn new_found(found: old::GetResult) -> new::Result<new::GetResult> {
    let payload = match found.payload {
        old::GetResultPayload::File(file, path) => new::GetResultPayload::File(file, path),
        old::GetResultPayload::Stream(pieces) => {
            new::GetResultPayload::Stream(pieces.map_err(new_error).boxed())
        }
    };
    Ok(new::GetResult {
        payload,
        meta: new_meta(found.meta)?,
        range: found.range,
        attributes: new_attributes(&found.attributes),
        extensions: new::Extensions::default(),
    })
}

fn new_list(
    listed: BoxStream<'static, old::Result<old::ObjectMeta>>,
) -> BoxStream<'static, new::Result<new::ObjectMeta>> {
    let listed = listed.map(|meta| meta.map_err(new_error).and_then(new_meta));
    listed.boxed()
}

fn failed_list(error: new::Error) -> BoxStream<'static, new::Result<new::ObjectMeta>> {
    futures::stream::iter([Err(error)]).boxed()
}

/// SlateDB marks what it creates, so that it knows its own object if the answer was lost.
fn old_attributes(attributes: &new::Attributes) -> old::Attributes {
    let mut same = old::Attributes::new();
    for (attribute, value) in attributes.iter() {
        let attribute = match attribute {
            new::Attribute::ContentType => old::Attribute::ContentType,
            new::Attribute::Metadata(name) => old::Attribute::Metadata(name.clone()),
            _ => continue,
        };
        let value: &str = value.as_ref();
        same.insert(attribute, old::AttributeValue::from(value.to_owned()));
    }
    same
}

fn new_attributes(attributes: &old::Attributes) -> new::Attributes {
    let mut same = new::Attributes::new();
    for (attribute, value) in attributes.iter() {
        let attribute = match attribute {
            old::Attribute::ContentType => new::Attribute::ContentType,
            old::Attribute::Metadata(name) => new::Attribute::Metadata(name.clone()),
            _ => continue,
        };
        let value: &str = value.as_ref();
        same.insert(attribute, new::AttributeValue::from(value.to_owned()));
    }
    same
}

/// The same error. SlateDB tells missing objects and lost races from failures.
fn new_error(error: old::Error) -> new::Error {
    match error {
        old::Error::NotFound { path, source } => new::Error::NotFound { path, source },
        old::Error::AlreadyExists { path, source } => new::Error::AlreadyExists { path, source },
        old::Error::Precondition { path, source } => new::Error::Precondition { path, source },
        old::Error::NotModified { path, source } => new::Error::NotModified { path, source },
        old::Error::NotSupported { source } => new::Error::NotSupported { source },
        old::Error::NotImplemented {
            operation,
            implementer,
        } => new::Error::NotImplemented {
            operation,
            implementer,
        },
        old::Error::PermissionDenied { path, source } => {
            new::Error::PermissionDenied { path, source }
        }
        old::Error::Unauthenticated { path, source } => {
            new::Error::Unauthenticated { path, source }
        }
        error => new::Error::Generic {
            store: "bucket",
            source: Box::new(error),
        },
    }
}

/// An error of whoever names objects to delete.
fn old_error(error: new::Error) -> old::Error {
    old::Error::Generic {
        store: "bucket",
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use object_store_slate::{ObjectStore, ObjectStoreExt};

    use super::*;

    const MARK: new::Attribute = new::Attribute::Metadata(std::borrow::Cow::Borrowed("mark"));

    fn memory() -> Adapter {
        Adapter::new(Arc::new(old::memory::InMemory::new()))
    }

    fn create(mark: &'static str) -> new::PutOptions {
        let mut options = new::PutOptions::from(new::PutMode::Create);
        options.attributes.insert(MARK, mark.into());
        options
    }

    #[tokio::test]
    async fn the_first_creator_is_known_by_its_mark() {
        let store = memory();
        let path = new::path::Path::from("shards/default/0/wal/1.sst");
        let created = store
            .put_opts(&path, "first".into(), create("mine"))
            .await
            .expect("nothing is there");
        let refused = store
            .put_opts(&path, "second".into(), create("other"))
            .await;
        assert!(
            matches!(refused, Err(new::Error::AlreadyExists { .. })),
            "{refused:?}"
        );
        let found = store.get(&path).await.expect("it is there");
        assert_eq!(
            found.attributes.get(&MARK).map(|mark| &**mark),
            Some("mine")
        );
        assert_eq!(found.meta.e_tag, created.e_tag);
        assert_eq!(found.bytes().await.expect("it is read"), "first");
        let range = store.get_range(&path, 1..3).await;
        assert_eq!(range.expect("it is read"), "ir");
    }

    #[tokio::test]
    async fn updates_are_of_the_version_that_was_read() {
        let store = memory();
        let path = new::path::Path::from("a");
        let first = store.put(&path, "first".into()).await.expect("it is put");
        let update = |version: &new::PutResult| {
            let version = new::UpdateVersion::from(version.clone());
            new::PutOptions::from(new::PutMode::Update(version))
        };
        let second = store.put_opts(&path, "second".into(), update(&first)).await;
        second.expect("it is the version");
        let late = store.put_opts(&path, "third".into(), update(&first)).await;
        assert!(
            matches!(late, Err(new::Error::Precondition { .. })),
            "{late:?}"
        );
    }

    #[tokio::test]
    async fn objects_are_listed_and_removed() {
        let store = memory();
        let paths = ["a/1", "a/2", "a/b/3", "c"].map(new::path::Path::from);
        for path in &paths {
            store.put(path, "text".into()).await.expect("it is put");
        }
        let prefix = new::path::Path::from("a");
        let listed = store.list_with_offset(Some(&prefix), &paths[0]);
        let listed: Vec<new::ObjectMeta> = listed.try_collect().await.expect("it lists");
        let mut listed: Vec<_> = listed.into_iter().map(|meta| meta.location).collect();
        listed.sort();
        assert_eq!(listed, paths[1..3]);
        let below = store.list_with_delimiter(Some(&prefix)).await;
        let below = below.expect("it lists");
        assert_eq!(below.common_prefixes, [new::path::Path::from("a/b")]);
        assert_eq!(below.objects.len(), 2);
        let gone = futures::stream::iter(paths[..2].to_vec()).map(Ok).boxed();
        let gone: Vec<_> = store
            .delete_stream(gone)
            .try_collect()
            .await
            .expect("they go");
        assert_eq!(gone, paths[..2]);
        let missing = store.get(&paths[0]).await;
        assert!(
            matches!(missing, Err(new::Error::NotFound { .. })),
            "{missing:?}"
        );
    }

    #[tokio::test]
    async fn parts_are_joined() {
        let store = memory();
        let path = new::path::Path::from("a");
        let mut upload = store.put_multipart(&path).await.expect("it starts");
        for part in ["one ", "two"] {
            upload.put_part(part.into()).await.expect("it is sent");
        }
        upload.complete().await.expect("it is whole");
        let found = store.get(&path).await.expect("it is there");
        assert_eq!(found.bytes().await.expect("it is read"), "one two");
    }
}
