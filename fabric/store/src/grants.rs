//! Stores that jobs may use, and which locations of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::aws::AwsCredentialProvider;
use weft_core::Location;
use weft_protocol::StoreSettings;

use crate::credentials::HeldCredentials;
use crate::error::{Error, Result};
use crate::remote::{Patience, Remote};
use crate::requests::Requests;

/// Roots that an error lists.
const ROOTS_TOLD: usize = 8;

/// One store.
#[derive(Debug, Clone)]
struct Grant {
    roots: Vec<Location>,
    remote: Remote,
}

/// Stores that jobs may use. Clones share their connections.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// The cluster's own, whose objects are nobody's input.
    own: Option<Location>,
    stores: Arc<Vec<Grant>>,
}

impl Grants {
    /// Opens the stores; nothing is sent yet. `own`: where the cluster's own one begins, if it is remote. `held`: of an
    /// executor, its credentials for stores with a role.
    ///
    /// Errors: `Settings` if one of them, or one of its roots, is wrong.
    pub fn open(
        own: Option<Location>,
        settings: &BTreeMap<String, StoreSettings>,
        held: Option<&HeldCredentials>,
    ) -> Result<Self> {
        let stores = settings.iter();
        let stores = stores.map(|(name, settings)| {
            grant(
                settings,
                held.map(|held| held.provider(Some(name))),
                Patience::Work,
            )
        });
        let stores = stores.collect::<Result<_>>()?;
        Ok(Self {
            own,
            stores: Arc::new(stores),
        })
    }

    /// One store with all that it holds.
    pub fn of(remote: Remote) -> Self {
        let roots = vec![remote.location().clone()];
        Self {
            own: None,
            stores: Arc::new(vec![Grant { roots, remote }]),
        }
    }

    /// A folder of the cluster's own store, by its key there, and nothing else.
    pub(crate) fn below(remote: Remote, folder: &str) -> Self {
        let root = remote.location().with_key(remote.path(folder));
        Self {
            own: None,
            stores: Arc::new(vec![Grant {
                roots: vec![root],
                remote,
            }]),
        }
    }

    /// The same stores, whose requests are counted by `requests`.
    pub(crate) fn metered(&self, requests: &Arc<Requests>) -> Self {
        let stores = self.stores.iter().map(|grant| Grant {
            roots: grant.roots.clone(),
            remote: grant.remote.metered(Arc::clone(requests)),
        });
        Self {
            own: self.own.clone(),
            stores: Arc::new(stores.collect()),
        }
    }

    /// The store that has a location in one of its roots.
    ///
    /// Errors: `NotAllowed` if there is none.
    pub fn find(&self, location: &Location) -> Result<&Remote> {
        let is_own = self.own.as_ref().is_some_and(|own| own.contains(location));
        let mut stores = self.stores.iter();
        let found = stores.find(|grant| grant.roots.iter().any(|root| root.contains(location)));
        match found {
            Some(grant) if !is_own => Ok(&grant.remote),
            _ => Err(Error::NotAllowed {
                location: location.to_string(),
                known: self.known(is_own),
            }),
        }
    }

    /// The store that has the folder of an output, in one of its roots.
    ///
    /// Errors: `NotAllowed` if there is none, or if the cluster's own objects lie in the folder: jobs would list and
    /// replace them.
    pub(crate) fn find_for_output(&self, location: &Location) -> Result<&Remote> {
        let holds_own = self.own.as_ref().is_some_and(|own| location.contains(own));
        match holds_own {
            false => self.find(location),
            true => Err(Error::NotAllowed {
                location: location.to_string(),
                known: "the cluster keeps its own objects below it; choose another prefix".into(),
            }),
        }
    }

    /// Returns whether jobs may use a location.
    pub fn allows(&self, location: &Location) -> bool {
        self.find(location).is_ok()
    }

    fn known(&self, is_own: bool) -> String {
        if is_own {
            return "the cluster keeps its own objects there; choose another prefix".into();
        }
        let roots: Vec<String> = self
            .stores
            .iter()
            .flat_map(|grant| &grant.roots)
            .map(|root| format!("`{root}`"))
            .collect();
        match roots.as_slice() {
            [] => {
                "the server's settings name none; add one as `[store.NAME]` with `url` and `roots`"
                    .into()
            }
            roots => {
                let more = match roots.len() > ROOTS_TOLD {
                    true => " and others",
                    false => "",
                };
                format!(
                    "{}{more} are; ask for a root in the server's settings",
                    roots[..roots.len().min(ROOTS_TOLD)].join(", ")
                )
            }
        }
    }
}

/// Opens one store with its roots; nothing is sent yet.
///
/// Errors: `Settings` if it, or one of its roots, is wrong.
pub(crate) fn opened(
    settings: &StoreSettings,
    patience: Patience,
) -> Result<(Remote, Vec<Location>)> {
    let grant = grant(settings, None, patience)?;
    Ok((grant.remote, grant.roots))
}

fn grant(
    settings: &StoreSettings,
    held: Option<AwsCredentialProvider>,
    patience: Patience,
) -> Result<Grant> {
    if settings.folder().is_some() {
        let what = "jobs read and write paths without a store of their own: name an `s3://`, `gs://` or `az://`";
        return Err(Error::settings(&settings.url, what));
    }
    let remote = Remote::open_with(settings, held, patience)?;
    let roots = roots(settings, remote.location());
    let roots = roots.map_err(|what| Error::settings(&settings.url, what))?;
    Ok(Grant { roots, remote })
}

/// Locations of a store that jobs may use. Errors: one of them is wrong.
pub(crate) fn roots(
    settings: &StoreSettings,
    location: &Location,
) -> std::result::Result<Vec<Location>, String> {
    if settings.roots.is_empty() {
        return Ok(vec![location.clone()]);
    }
    let whole = location.with_key("");
    let roots = settings.roots.iter().map(|root| {
        let root = Location::parse(root)?;
        match whole.contains(&root) {
            true => Ok(root),
            false => Err(format!("its root `{root}` is not in its bucket")),
        }
    });
    roots.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Location {
        Location::parse(text).expect("it is right")
    }

    fn grants(url: &str, roots: &[&str]) -> Result<Grants> {
        let mut settings = StoreSettings::of_url(url);
        settings.roots = roots.iter().map(|root| (*root).to_owned()).collect();
        let own = Some(at("s3://lake/weft"));
        let stores = BTreeMap::from([("lake".to_owned(), settings)]);
        Grants::open(own, &stores, None)
    }

    #[tokio::test]
    async fn jobs_may_use_roots_alone() {
        let grants = grants("s3://lake", &["s3://lake/raw", "s3://lake/out"]).expect("it opens");
        assert!(grants.allows(&at("s3://lake/raw/a.csv")));
        assert!(grants.allows(&at("s3://lake/out/")));
        for outside in [
            "s3://lake/rawer/a.csv",
            "s3://lake/",
            "s3://other/raw/a.csv",
        ] {
            let error = grants.find(&at(outside)).expect_err("it is outside");
            assert!(error.to_string().contains("`s3://lake/raw`"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_clusters_own_objects_are_nobodys_input() {
        let grants = grants("s3://lake/", &[]).expect("it opens");
        assert!(grants.allows(&at("s3://lake/a.csv")));
        let error = grants
            .find(&at("s3://lake/weft/archive/a"))
            .expect_err("it is the cluster's");
        assert!(error.to_string().contains("its own objects"), "{error}");
    }

    #[tokio::test]
    async fn outputs_do_not_go_around_the_clusters_own_objects() {
        let grants = grants("s3://lake/", &[]).expect("it opens");
        for around in ["s3://lake/", "s3://lake/weft", "s3://lake/weft/"] {
            let refused = grants.output_folder(&at(around));
            let error = refused.expect_err("the cluster's lie in it");
            assert!(error.to_string().contains("its own objects"), "{error}");
        }
        for beside in ["s3://lake/out/", "s3://lake/wefts/"] {
            let folder = grants.output_folder(&at(beside));
            folder.expect("it is another prefix");
        }
    }

    #[tokio::test]
    async fn a_folder_of_the_own_store_is_reached_alone() {
        let remote = Remote::in_memory("s3://cluster/weft").expect("it opens");
        let grants = Grants::below(remote, "outputs");
        assert!(grants.allows(&at("s3://cluster/weft/outputs/job-1/rows/a.arrow")));
        for outside in [
            "s3://cluster/weft/jobs/job-1/a",
            "s3://cluster/weft/outputs-of-others/a",
            "s3://cluster/outputs/a",
            "s3://other/weft/outputs/a",
        ] {
            assert!(!grants.allows(&at(outside)), "{outside}");
        }
    }

    #[tokio::test]
    async fn wrong_roots_are_refused() {
        let error = grants("s3://lake", &["s3://other/raw"]).expect_err("another bucket");
        assert!(error.to_string().contains("not in its bucket"), "{error}");
        let error = grants("/data", &[]).expect_err("a folder");
        assert!(error.to_string().contains("without a store"), "{error}");
    }

    #[test]
    fn without_stores_the_error_says_how_to_add_one() {
        let error = Grants::default()
            .find(&at("s3://lake/a"))
            .expect_err("no store");
        assert!(error.to_string().contains("[store.NAME]"), "{error}");
    }
}
