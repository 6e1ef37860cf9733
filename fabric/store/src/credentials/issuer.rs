//! Gets credentials for executors, for the agent that starts them.

use futures::future::try_join_all;
use weft_core::{Location, StoreKind, TenantId};
use weft_protocol::{ExecutorCredentials, SessionCredential, StoreSettings, Stores};

use super::policy;
use super::sts::{Sts, Wanted};
use crate::error::{Error, Result};
use crate::grants::roots;

/// Names of options of S3 with these words are about credentials.
const OF_CREDENTIALS: [&str; 6] = [
    "access_key",
    "secret",
    "token",
    "role",
    "credential",
    "profile",
];

/// Letters of a tenant's id, at most.
const MAX_TENANT_LETTERS: usize = 63;

/// Gets credentials of the roles of a server's stores.
pub struct Issuer {
    /// The stores as executors are told of them.
    stores: Stores,
    /// Roles by the names of their stores; the cluster's own has none.
    roles: Vec<(Option<String>, Role)>,
}

/// A role, and what executors may do in it.
struct Role {
    arn: String,
    scope: Scope,
    sts: Sts,
}

/// Permissions of a session, within those of its role.
enum Scope {
    /// A tenant's part of the cluster's own store.
    Own { partition: String, store: Location },
    /// The same for all tenants: a policy.
    All(String),
}

impl Scope {
    /// The cluster's own store.
    fn own(partition: &str, store: &Location) -> std::result::Result<Self, String> {
        // No tenant's policy is longer.
        let longest = "x".repeat(MAX_TENANT_LETTERS);
        let longest = TenantId::try_from(longest).map_err(|error| error.to_string())?;
        policy::own(partition, store, &longest)?;
        Ok(Self::Own {
            partition: partition.to_owned(),
            store: store.clone(),
        })
    }

    /// The policy of a session for a tenant.
    fn policy(&self, tenant: &TenantId) -> Result<String> {
        match self {
            Self::All(policy) => Ok(policy.clone()),
            Self::Own { partition, store } => policy::own(partition, store, tenant)
                .map_err(|what| Error::settings(&store.to_string(), what)),
        }
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let arns = self.roles.iter().map(|(_, role)| &role.arn);
        f.debug_list().entries(arns).finish()
    }
}

impl Issuer {
    /// Opens the services of the stores that have a role; nothing is sent yet. The runtime that this is called in
    /// drives their connections.
    ///
    /// Errors: `Settings` if a role is none, or no policy can be made for it.
    pub fn open(stores: &Stores) -> Result<Self> {
        let own = role(&stores.own, Scope::own)?;
        let mut roles: Vec<_> = own.into_iter().map(|role| (None, role)).collect();
        for (name, settings) in &stores.granted {
            let role = role(settings, |partition, location| {
                policy::granted(partition, &roots(settings, location)?).map(Scope::All)
            })?;
            roles.extend(role.map(|role| (Some(name.clone()), role)));
        }
        let granted = stores.granted.iter();
        let granted = granted.map(|(name, settings)| (name.clone(), told(settings)));
        Ok(Self {
            stores: Stores {
                own: told(&stores.own),
                granted: granted.collect(),
            },
            roles,
        })
    }

    /// The stores as executors are told of them: those with a role have no credentials.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Gets credentials for one executor of a tenant. `session`: its name in the logs of the services.
    ///
    /// Errors: `NotAssumed`, with the reason.
    pub async fn issue(&self, session: &str, tenant: &TenantId) -> Result<ExecutorCredentials> {
        let asked = self.roles.iter().map(|(name, role)| async move {
            let credential = role.assume(session, tenant).await?;
            Ok::<_, Error>((name.clone(), credential))
        });
        let asked: Vec<_> = asked.collect();
        let mut credentials = ExecutorCredentials::default();
        for (name, credential) in try_join_all(asked).await? {
            match name {
                None => credentials.own = Some(credential),
                Some(name) => drop(credentials.granted.insert(name, credential)),
            }
        }
        Ok(credentials)
    }
}

impl Role {
    async fn assume(&self, session: &str, tenant: &TenantId) -> Result<SessionCredential> {
        let policy = self.scope.policy(tenant)?;
        let wanted = Wanted {
            role: &self.arn,
            session,
            policy: &policy,
        };
        self.sts.assume(&wanted).await
    }
}

/// The role of a store, if it has one. `scope` narrows it, by the partition and where the store begins.
fn role(
    settings: &StoreSettings,
    scope: impl FnOnce(&str, &Location) -> std::result::Result<Scope, String>,
) -> Result<Option<Role>> {
    let Some(arn) = &settings.executor_role else {
        return Ok(None);
    };
    let wrong = |what: String| Error::settings(&settings.url, what);
    let location = Location::parse(&settings.url).map_err(wrong)?;
    if location.kind != StoreKind::S3 {
        return Err(wrong("`executor_role` is of `s3://` alone".into()));
    }
    let partition = policy::partition(arn).map_err(wrong)?;
    Ok(Some(Role {
        arn: arn.clone(),
        scope: scope(partition, &location).map_err(wrong)?,
        sts: Sts::open(settings, &location, partition)?,
    }))
}

/// Settings as executors are told of them.
fn told(settings: &StoreSettings) -> StoreSettings {
    let mut told = settings.clone();
    if settings.executor_role.is_some() {
        let is_kept = |name: &str| {
            let name = name.to_ascii_lowercase();
            !OF_CREDENTIALS.iter().any(|word| name.contains(word))
        };
        told.options.retain(|name, _| is_kept(name));
    }
    told
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_protocol::Secret;

    use super::*;

    const ROLE: &str = "arn:aws:iam::123456789012:role/weft-executors";

    fn lake(url: &str, role: &str) -> StoreSettings {
        let mut settings = StoreSettings::of_url(url);
        settings.executor_role = Some(role.to_owned());
        for name in ["access_key_id", "AWS_SECRET_ACCESS_KEY", "timeout"] {
            settings.options.insert(name.into(), Secret::new("10s"));
        }
        settings
    }

    #[tokio::test]
    async fn executors_are_not_told_the_keys_of_stores_with_a_role() {
        let mut with_keys = lake("s3://cluster/weft", ROLE);
        with_keys.executor_role = None;
        let stores = Stores {
            own: with_keys.clone(),
            granted: BTreeMap::from([("lake".to_owned(), lake("s3://lake/", ROLE))]),
        };
        let issuer = Issuer::open(&stores).expect("it is right");
        assert_eq!(issuer.stores().own, with_keys, "there is no other way");
        let told = &issuer.stores().granted["lake"];
        let names: Vec<&str> = told.options.keys().map(String::as_str).collect();
        assert_eq!(names, ["timeout"]);
        assert_eq!(told.executor_role.as_deref(), Some(ROLE));
    }

    #[tokio::test]
    async fn without_roles_nothing_is_asked() {
        let issuer = Issuer::open(&Stores::folder("/store".as_ref())).expect("it is right");
        let issued = issuer.issue("weft", &TenantId::default_tenant()).await;
        let issued = issued.expect("nothing is asked");
        assert_eq!(issued, ExecutorCredentials::default());
    }

    #[tokio::test]
    async fn mistakes_are_named() {
        for (settings, expected) in [
            (lake("gs://lake/", ROLE), "`s3://` alone"),
            (lake("/data", ROLE), "not a location"),
            (lake("s3://lake/", "weft"), "the ARN of a role"),
            (lake("s3://lake/a?", ROLE), "another prefix"),
        ] {
            let stores = Stores {
                own: settings,
                granted: BTreeMap::new(),
            };
            let error = Issuer::open(&stores).expect_err("it is wrong").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
