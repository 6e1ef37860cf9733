//! The store that a data folder was started with. A file says which one it is, without secrets, so that no later start
//! goes on without the objects that the folder's control state is about.
//!
//! ```text
//! first start that serves ──▶ store.url ──▶ later starts:  none named ──▶ this one
//!                                                          this one named ──▶ it
//!                                                          another one named ──▶ refused
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use weft_core::Location;
use weft_protocol::StoreSettings;
use weft_store::has_credentials;

/// Name of the file in a data folder.
const FILE: &str = "store.url";
/// Stands in the file for the folder `store` of the data folder, which may be moved with it.
const OWN_FOLDER: &str = "store";

/// The store of a data folder, if it had one before.
pub(crate) struct RememberedStore {
    data: PathBuf,
    /// The store as [`Self::spelled`] spells it.
    known: Option<String>,
}

impl RememberedStore {
    /// Reads which store a data folder has. Errors: the file cannot be read, or says nothing.
    pub(crate) fn of(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(FILE);
        let known = match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("`{}`", path.display())),
        };
        if known.as_ref().is_some_and(String::is_empty) {
            bail!(
                "`{}` is empty: write the URL of the store to it, or `{OWN_FOLDER}` for the folder of that name there",
                path.display()
            );
        }
        let data = data.to_owned();
        Ok(Self { data, known })
    }

    /// URL or path of the store if nothing names one.
    pub(crate) fn default_url(&self) -> String {
        match self.known.as_deref() {
            None | Some(OWN_FOLDER) => self.own_folder().display().to_string(),
            Some(url) => url.to_owned(),
        }
    }

    /// Fails if a start would go on without the folder's objects. `is_named`: settings name the store `own`.
    pub(crate) fn check(&self, own: &StoreSettings, is_named: bool) -> anyhow::Result<()> {
        let Some(known) = &self.known else {
            return Ok(());
        };
        let (data, named) = (self.data.display(), self.spelled(&own.url));
        if named != *known {
            bail!(
                "the data folder `{data}` has its objects in the store `{known}`, and the store `{named}` is named: \
                 components and tables would be missing; name `{known}`, or none, or choose another folder with \
                 --data; if all objects were moved to `{named}`, write that to `{data}/{FILE}`"
            );
        }
        if !is_named && own.folder().is_none() && !has_credentials(own) {
            bail!(
                "the data folder `{data}` has its objects in the store `{known}`, and the environment has no \
                 credentials for it: set them as at the first start (such as AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, and WEFT__STORE__ENDPOINT if it had one), or start with `--store {known}` if \
                 the instance has a role"
            );
        }
        Ok(())
    }

    /// Writes down the store of a start that serves, if it is the first one.
    pub(crate) fn keep(&self, own: &StoreSettings) -> anyhow::Result<()> {
        if self.known.is_some() {
            return Ok(());
        }
        let path = self.data.join(FILE);
        let write = || -> std::io::Result<()> {
            let draft = self.data.join("store.draft");
            let mut file = File::create(&draft)?;
            writeln!(file, "{}", self.spelled(&own.url))?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.data)?.sync_all()
        };
        write().with_context(|| format!("`{}`", path.display()))
    }

    fn own_folder(&self) -> PathBuf {
        self.data.join("store")
    }

    /// One spelling of a store: of all that name the same.
    fn spelled(&self, url: &str) -> String {
        if let Ok(location) = Location::parse(url) {
            return location.to_string().trim_end_matches('/').to_owned();
        }
        if Location::is_one(url) {
            return Location::shown(url);
        }
        let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let path = real(path);
        match path == real(&self.own_folder()) {
            true => OWN_FOLDER.to_owned(),
            false => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::Secret;

    use super::*;

    fn with_key(url: &str) -> StoreSettings {
        let mut settings = StoreSettings::of_url(url);
        let key = ("aws_access_key_id".to_owned(), Secret::new("hush"));
        settings.options.extend([key]);
        settings
    }

    #[track_caller]
    fn refusal(data: &Path, own: &StoreSettings, is_named: bool) -> String {
        let store = RememberedStore::of(data).expect("it reads");
        let refused = store.check(own, is_named);
        refused.expect_err("it is refused").to_string()
    }

    #[test]
    fn a_folder_goes_on_with_its_store() {
        let data = tempfile::tempdir().expect("a folder");
        let store = RememberedStore::of(data.path()).expect("it is new");
        let own = with_key("s3://lake/weft/");
        store.check(&own, true).expect("it is the first");
        store.keep(&own).expect("it writes");
        let text = fs::read_to_string(data.path().join(FILE)).expect("it is there");
        assert_eq!(text, "s3://lake/weft\n", "no secrets");

        let store = RememberedStore::of(data.path()).expect("it reads");
        assert_eq!(store.default_url(), "s3://lake/weft");
        for again in ["s3://lake/weft", "s3://lake//weft/"] {
            store.check(&with_key(again), false).expect("the same");
            let of_role = StoreSettings::of_url(again);
            store.check(&of_role, true).expect("a role has the right");
        }
        let without = refusal(data.path(), &StoreSettings::of_url("s3://lake/weft"), false);
        assert!(without.contains("no credentials"), "{without}");
        assert!(without.contains("`--store s3://lake/weft`"), "{without}");
        for other in ["s3://lake/other", "s3://pond/weft", "/srv/weft"] {
            let text = refusal(data.path(), &with_key(other), true);
            for told in ["`s3://lake/weft`", other, "--data", "hush"] {
                assert_eq!(text.contains(told), told != "hush", "{text}");
            }
        }
    }

    #[test]
    fn a_folder_with_its_own_store_may_be_moved() {
        let root = tempfile::tempdir().expect("a folder");
        let (before, after) = (root.path().join("before"), root.path().join("after"));
        let own = |data: &Path| StoreSettings::of_url(data.join("store").display().to_string());
        fs::create_dir_all(before.join("store")).expect("it is made");
        let store = RememberedStore::of(&before).expect("it is new");
        assert_eq!(store.default_url(), own(&before).url);
        store.keep(&own(&before)).expect("it writes");
        fs::rename(&before, &after).expect("it is moved");
        let store = RememberedStore::of(&after).expect("it reads");
        assert_eq!(store.default_url(), own(&after).url);
        store.check(&own(&after), false).expect("it is its own");
        let text = refusal(&after, &with_key("s3://lake/weft"), true);
        assert!(text.contains("the store `store`"), "{text}");
    }

    #[test]
    fn an_empty_file_is_no_store() {
        let data = tempfile::tempdir().expect("a folder");
        fs::write(data.path().join(FILE), "\n").expect("it writes");
        let refused = RememberedStore::of(data.path()).err();
        let text = refused.expect("it says nothing").to_string();
        assert!(text.contains("write the URL"), "{text}");
    }
}
