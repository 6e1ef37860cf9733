//! Which objects of a store a pattern matches, by listing no more than a bounded number of them.

use std::collections::BTreeMap;

use glob::Pattern;
use weft_core::job::{InputFormat, InputSpec};
use weft_core::{ErrorCode, Location, Problem};
use weft_store::{
    Error, ErrorKind, FoundObject, Grants, Manifest, ManifestFile, ObjectFolder, Remote,
};

use super::patterns::{self, FILES_MAX, NAMES_MAX, OPTIONS};

/// An object as it was found.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) bytes: u64,
    /// The object's version. A manifest does not say it: its files are written once, under keys of their own.
    pub(super) e_tag: Option<String>,
}

impl From<FoundObject> for Object {
    fn from(found: FoundObject) -> Self {
        Self {
            bytes: found.bytes,
            e_tag: found.e_tag,
        }
    }
}

/// The objects that a location names, or that match it as a pattern, with their sizes and versions.
///
/// Objects are listed below the folder in which the pattern's first `*`, `?` or `[` stands. Errors: `NoInput` if there
/// are none, or the store refuses; `InvalidJob` if jobs may not use the location; `TooLarge` beyond a bound.
pub(super) fn list(
    grants: &Grants,
    input: &str,
    uri: &str,
) -> Result<BTreeMap<String, Object>, Problem> {
    let no_input = |what: String| no_input(input, uri, &what);
    let failed = |error: Error| failed(input, uri, &error);
    let location = Location::parse(uri).map_err(no_input)?;
    if location.key.is_empty() || location.key.ends_with('/') {
        if let Some((folder, manifest)) = manifest(grants, &location).map_err(failed)? {
            return files(&folder, &manifest).map_err(failed);
        }
        let what = "names a folder without a manifest `_weft.manifest`: say which objects, such as `*.parquet`, or `**/*.parquet` for those of all folders in it";
        return Err(no_input(what.into()));
    }
    if let Some(key) = patterns::literal(&location.key) {
        let object = location.with_key(key);
        let found = grants.find(&object).map_err(failed)?.find_object(&object);
        let found = found.map_err(failed)?;
        let found = found.ok_or_else(|| no_input("is not there".into()))?;
        return Ok(BTreeMap::from([(object.to_string(), found.into())]));
    }
    let folder = folder_of(&location);
    let remote = grants.find(&folder).map_err(failed)?;
    let pattern = Pattern::new(&location.key).map_err(|error| no_input(error.to_string()))?;
    let listing = Listing {
        grants,
        remote,
        folder: &folder,
        pattern: &pattern,
    };
    let found = listing.matches().map_err(|stopped| match stopped {
        Stopped::Store(error) => failed(error),
        Stopped::Bound(error) => {
            let detail = format!("input `{input}`: `{uri}` {error}");
            Problem::new(ErrorCode::TooLarge, detail)
        }
    })?;
    match found.is_empty() {
        true => Err(no_input(
            "matches no object (`*`, `?` and `[..]` are patterns; `[[]` is a bracket)".into(),
        )),
        false => Ok(found),
    }
}

fn no_input(input: &str, uri: &str, what: &str) -> Problem {
    let detail = format!("input `{input}`: `{uri}`: {what}");
    Problem::new(ErrorCode::NoInput, detail)
}

fn failed(input: &str, uri: &str, error: &Error) -> Problem {
    match (error.kind(), error) {
        // A folder with a manifest is that of an output.
        (ErrorKind::Refused, Error::Refused { .. } | Error::Forbidden { .. }) => {
            no_input(input, uri, &error.to_string())
        }
        _ => error.problem(),
    }
}

/// The manifest of a folder, if jobs have written it.
fn manifest(
    grants: &Grants,
    location: &Location,
) -> Result<Option<(ObjectFolder, Manifest)>, Error> {
    let folder = match grants.output_folder(location) {
        Err(Error::Unpublishable(_)) => return Ok(None),
        folder => folder?,
    };
    let manifest = folder.wait_for_manifest()?;
    Ok(manifest.map(|manifest| (folder, manifest)))
}

/// The files of a folder as its manifest lists them: all of each job's, or none.
fn files(folder: &ObjectFolder, manifest: &Manifest) -> Result<BTreeMap<String, Object>, Error> {
    let file = |file: &ManifestFile| -> Result<(String, Object), Error> {
        let path = folder.path(file.key())?;
        let object = Object {
            bytes: file.bytes,
            e_tag: None,
        };
        Ok((folder.remote().uri_of(&path), object))
    };
    manifest.files.iter().map(file).collect()
}

/// The input that reads a table: its folders on object stores are read as their manifests list them if jobs have
/// written them in the table's format, and otherwise by a pattern.
pub(super) fn of_table(grants: &Grants, input: &InputSpec) -> Result<InputSpec, Problem> {
    let uri = |uri: &String| -> Result<String, Problem> {
        match folder_pattern(uri, &input.format) {
            Some(pattern) if !is_written(grants, input, uri)? => Ok(pattern),
            _ => Ok(uri.clone()),
        }
    };
    Ok(InputSpec {
        uris: input.uris.iter().map(uri).collect::<Result<_, _>>()?,
        ..input.clone()
    })
}

/// Returns whether jobs have written a folder in the format of an input, without `partition_by`: the columns that
/// folders give are for the location to name.
fn is_written(grants: &Grants, input: &InputSpec, uri: &str) -> Result<bool, Problem> {
    let location = Location::parse(uri).map_err(|what| no_input(&input.name, uri, &what))?;
    let found = manifest(grants, &location);
    let found = found.map_err(|error| failed(&input.name, uri, &error))?;
    Ok(found.is_some_and(|(_, manifest)| {
        let is_like =
            manifest.format == format_of(&input.format) && manifest.partition_by.is_empty();
        is_like && manifest.holds_output()
    }))
}

/// The pattern of the files of a format in a folder on an object store. Nothing for another location.
pub(super) fn folder_pattern(uri: &str, format: &InputFormat) -> Option<String> {
    let folder = uri.strip_suffix('/').filter(|_| Location::is_one(uri))?;
    let names = patterns::in_folder(format_of(format));
    Some(format!("{}/{names}", patterns::escape(folder)))
}

/// The name of a format in job documents.
pub(super) fn format_of(format: &InputFormat) -> &'static str {
    match format {
        InputFormat::Parquet { .. } => "parquet",
        InputFormat::Arrow { .. } => "arrow",
        InputFormat::Json { .. } => "json",
        InputFormat::Csv(_) => "csv",
        InputFormat::Text { .. } => "text",
    }
}

/// The folder in which the first part stands that is a pattern.
fn folder_of(pattern: &Location) -> Location {
    let parts = pattern.key.split('/').map_while(patterns::literal);
    pattern.with_key(parts.collect::<Vec<_>>().join("/"))
}

/// Why a listing ended early.
enum Stopped {
    Store(Error),
    Bound(patterns::Error),
}

/// A listing of one pattern.
struct Listing<'a> {
    grants: &'a Grants,
    remote: &'a Remote,
    folder: &'a Location,
    pattern: &'a Pattern,
}

impl Listing<'_> {
    fn matches(&self) -> Result<BTreeMap<String, Object>, Stopped> {
        let mut found = BTreeMap::new();
        // Some programs mark folders by empty objects, which come before what lies in them.
        let mut last_empty: Option<String> = None;
        let objects = self.remote.objects_below(&self.folder.key);
        for (n, object) in objects.map_err(Stopped::Store)?.enumerate() {
            if n >= NAMES_MAX {
                return Err(Stopped::Bound(patterns::Error::TooManyNames));
            }
            let object = object.map_err(Stopped::Store)?;
            if let Some(folder) = last_empty.take()
                && let Some(rest) = object.key.strip_prefix(&folder)
                && rest.starts_with('/')
            {
                found.remove(&self.folder.with_key(folder).to_string());
            }
            if object.bytes == 0 {
                last_empty = Some(object.key.clone());
            }
            let location = self.folder.with_key(object.key.clone());
            if self.is_meant(&location) {
                found.insert(location.to_string(), object.into());
            }
            if found.len() > FILES_MAX {
                return Err(Stopped::Bound(patterns::Error::TooManyFiles));
            }
        }
        Ok(found)
    }

    /// Returns whether an object matches, is none that lies beside data, and is for jobs to use.
    fn is_meant(&self, location: &Location) -> bool {
        let name = location.key.rsplit('/').next().unwrap_or_default();
        !name.starts_with(['_', '.'])
            && self.pattern.matches_with(&location.key, OPTIONS)
            && self.grants.allows(location)
    }
}

#[cfg(test)]
mod tests {
    use weft_core::job::BadRecords;

    use super::*;

    fn at(text: &str) -> Location {
        Location::parse(text).expect("it is right")
    }

    #[test]
    fn patterns_are_listed_below_their_first_folders() {
        for (pattern, expected) in [
            ("s3://lake/a/b/*.csv", "s3://lake/a/b"),
            ("s3://lake/day=*/x.csv", "s3://lake/"),
            ("s3://lake/a[[]1]/**/x.csv", "s3://lake/a[1]"),
        ] {
            assert_eq!(folder_of(&at(pattern)), at(expected), "{pattern}");
        }
    }

    /// The objects of a store of the process' memory that a pattern matches.
    async fn matching(objects: &[(&str, usize)], pattern: &str) -> Vec<String> {
        let remote = Remote::in_memory("s3://lake/").expect("it opens");
        let grants = Grants::of(remote.clone());
        let blobs = weft_store::Blobs::of_remote(remote, Grants::default());
        for (key, bytes) in objects {
            let put = blobs.put(key, vec![0_u8; *bytes]).await;
            put.expect("it is written");
        }
        let pattern = format!("s3://lake/{pattern}");
        let listed = move || list(&grants, "rows", &pattern);
        let listed = tokio::task::spawn_blocking(listed).await.expect("it ends");
        let keys = listed.unwrap_or_default().into_keys();
        let keys = keys.map(|uri| uri.trim_start_matches("s3://lake/").to_owned());
        keys.collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn objects_match_as_files_do() {
        let objects = [
            ("a.csv", 1),
            ("b.csv", 1),
            (".c.csv", 1),
            ("_d.csv", 1),
            ("x/a.csv", 1),
            ("x/y/a.csv", 1),
            ("x/.h/a.csv", 1),
            ("xy/a.csv", 1),
        ];
        let check = async |pattern: &str, expected: &[&str]| {
            assert_eq!(matching(&objects, pattern).await, expected, "{pattern}");
        };
        check("*.csv", &["a.csv", "b.csv"]).await;
        check("[b-z].csv", &["b.csv"]).await;
        check("*/a.csv", &["x/a.csv", "xy/a.csv"]).await;
        check("**/a.csv", &["a.csv", "x/a.csv", "x/y/a.csv", "xy/a.csv"]).await;
        check("x/**/*.csv", &["x/a.csv", "x/y/a.csv"]).await;
        check("x/a.csv", &["x/a.csv"]).await;
        check("x/b.csv", &[]).await;
        check("x/", &[]).await;
        check("none/*.csv", &[]).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn marks_of_folders_are_no_files() {
        let objects = [("day=1", 0), ("day=1/a", 3), ("day=2", 0)];
        assert_eq!(matching(&objects, "*").await, ["day=2"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_of_a_folder_has_the_files_that_its_manifest_lists() {
        let remote = Remote::in_memory("s3://lake/").expect("it opens");
        let grants = Grants::of(remote.clone());
        let blobs = weft_store::Blobs::of_remote(remote, Grants::default());
        let manifest = r#"{ "job": "job-1", "output": "t", "format": "parquet", "schema": [], "rows": 1, "bytes": 1,
            "files": [{ "name": "a.parquet", "rows": 1, "bytes": 1, "xxh3": "0" }] }"#;
        let objects = [
            ("t/a.parquet", "a"),
            ("t/b.parquet", "b"),
            ("t/_weft.manifest", manifest),
            ("u/b.parquet", "b"),
        ];
        for (key, text) in objects {
            blobs.put(key, text).await.expect("it is written");
        }
        let keys = async |uri: &str| {
            let input = InputSpec {
                name: "t".into(),
                format: InputFormat::Parquet {
                    columns: Vec::new(),
                    filter: Vec::new(),
                },
                uris: vec![uri.to_owned()],
                bad_records: BadRecords::Fail,
            };
            let grants = grants.clone();
            let listed = tokio::task::spawn_blocking(move || {
                let input = of_table(&grants, &input).expect("it looks");
                list(&grants, "t", &input.uris[0]).expect("it lists")
            });
            let listed = listed.await.expect("it ends");
            listed.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(keys("s3://lake/t/").await, ["s3://lake/t/a.parquet"]);
        assert_eq!(keys("s3://lake/u/").await, ["s3://lake/u/b.parquet"]);
        assert_eq!(keys("s3://lake/t/*.parquet").await.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn objects_are_listed_with_their_versions() {
        let remote = Remote::in_memory("s3://lake/").expect("it opens");
        let grants = Grants::of(remote.clone());
        let blobs = weft_store::Blobs::of_remote(remote, Grants::default());
        blobs.put("a.csv", "a").await.expect("it is written");
        for uri in ["s3://lake/a.csv", "s3://lake/*.csv"] {
            let grants = grants.clone();
            let listed = tokio::task::spawn_blocking(move || list(&grants, "rows", uri));
            let listed = listed.await.expect("it ends").expect("it lists");
            let has_version = |object: &Object| object.e_tag.is_some();
            assert!(listed.values().all(has_version), "{uri}: {listed:?}");
        }
    }

    #[test]
    fn locations_outside_of_all_roots_are_the_jobs_mistake() {
        let problem = list(&Grants::default(), "rows", "s3://lake/*.csv");
        let problem = problem.expect_err("no store");
        assert_eq!(problem.code, ErrorCode::InvalidJob);
        assert!(problem.detail.contains("[store.NAME]"), "{problem}");
    }
}
