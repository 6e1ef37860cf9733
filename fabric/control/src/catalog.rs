//! Components, their versions and functions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_core::job::{FunctionRef, nearest};
use weft_core::{Digest, ErrorCode, FunctionKind, FunctionRecord, PinnedFunction, Problem};

/// Components whose names are compared with one that is not there.
const SUGGESTIONS_MAX: usize = 1000;

/// Most components of a tenant, and most versions of one component.
const COMPONENTS_MAX: usize = 10_000;
const VERSIONS_MAX: usize = 1_000;
/// Engines for which a component has artefacts.
const MAX_ENGINES: usize = 16;
/// Recorded artefacts after which those that nobody needs are looked for.
const ARTEFACTS_PRUNED_EVERY: usize = 1_024;

/// One version of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// From `describe`.
    pub name: String,
    /// From `describe`.
    pub version: String,
    /// Of the uploaded bytes.
    pub digest: Digest,
    /// Of the uploaded bytes.
    pub size_bytes: u64,
    /// When the version was registered, in Unix milliseconds.
    pub created_ms: u64,
    /// From `describe`.
    pub functions: Vec<FunctionRecord>,
    /// Interfaces that the component imports.
    pub imports: Vec<String>,
}

/// The components of one tenant, by name and version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalog {
    components: BTreeMap<String, BTreeMap<String, ComponentRecord>>,
    /// Digests of artefacts, by component and by the name of the engine's artefacts. They outlive
    /// development versions that were replaced while jobs run with them.
    artefacts: BTreeMap<Digest, BTreeMap<String, Digest>>,
}

impl Catalog {
    /// Adds a version. The same digest again changes nothing; another one is a conflict unless the version ends in `-dev`.
    ///
    /// Returns the record that stands now, and whether it is new.
    pub(crate) fn register(
        &mut self,
        record: ComponentRecord,
    ) -> Result<(ComponentRecord, bool), Problem> {
        let full = |what: &str, most: usize| {
            Problem::new(
                ErrorCode::TooLarge,
                format!("the tenant holds {most} {what}, which is the limit"),
            )
        };
        if !self.components.contains_key(&record.name) && self.components.len() >= COMPONENTS_MAX {
            return Err(full("components", COMPONENTS_MAX));
        }
        let versions = self.components.entry(record.name.clone()).or_default();
        match versions.get(&record.version) {
            Some(old) if old.digest == record.digest => return Ok((old.clone(), false)),
            Some(old) if !record.version.ends_with("-dev") => {
                let detail = format!(
                    "`{}` {} is registered with digest {}; raise the version, or end it in `-dev` while you develop",
                    record.name, record.version, old.digest
                );
                return Err(Problem::new(ErrorCode::VersionConflict, detail));
            }
            None if versions.len() >= VERSIONS_MAX => {
                return Err(full("versions of this component", VERSIONS_MAX));
            }
            Some(_) | None => {}
        }
        versions.insert(record.version.clone(), record.clone());
        Ok((record, true))
    }

    /// Records the artefact of a component for one engine. `pinned` says whether jobs need it.
    pub(crate) fn record_artefact(
        &mut self,
        digest: Digest,
        compatibility: String,
        artefact: Digest,
        pinned: impl Fn(&Digest) -> bool,
    ) {
        if self.artefacts.len() >= ARTEFACTS_PRUNED_EVERY
            && self.artefacts.len().is_multiple_of(ARTEFACTS_PRUNED_EVERY)
        {
            let held: BTreeSet<Digest> = self.iter().map(|record| record.digest.clone()).collect();
            self.artefacts
                .retain(|digest, _| held.contains(digest) || pinned(digest));
        }
        let by_engine = self.artefacts.entry(digest).or_default();
        if by_engine.len() >= MAX_ENGINES && !by_engine.contains_key(&compatibility) {
            by_engine.pop_first();
        }
        by_engine.insert(compatibility, artefact);
    }

    /// The digest of a component's artefact for an engine, if it was compiled for it.
    pub fn artefact(&self, digest: &Digest, compatibility: &str) -> Option<&Digest> {
        self.artefacts.get(digest)?.get(compatibility)
    }

    /// The version asked for, or the newest one by semantic versioning.
    pub fn find(&self, name: &str, version: Option<&str>) -> Option<&ComponentRecord> {
        let versions = self.components.get(name)?;
        match version {
            Some(version) => versions.get(version),
            None => versions
                .values()
                .max_by_key(|record| semver::Version::parse(&record.version).ok()),
        }
    }

    /// Every version of every component, by name, then by version as text.
    pub fn iter(&self) -> impl Iterator<Item = &ComponentRecord> {
        self.components.values().flat_map(BTreeMap::values)
    }

    /// True while some version has these bytes.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.iter().any(|record| record.digest == *digest)
    }

    /// Resolves `reference` to a function of one of `kinds`.
    ///
    /// Errors: `unknown_function`, which names what there is instead.
    pub(crate) fn pin(
        &self,
        reference: &str,
        kinds: &[FunctionKind],
    ) -> Result<PinnedFunction, Problem> {
        let unknown = |detail: String| {
            Problem::new(ErrorCode::UnknownFunction, detail).of_function(reference)
        };
        let parsed = FunctionRef::parse(reference)
            .ok_or_else(|| unknown(format!("`{reference}` is not a function reference")))?;
        let record = self
            .find(&parsed.component, parsed.version.as_deref())
            .ok_or_else(|| unknown(self.absent(&parsed)))?;
        let function = record
            .functions
            .iter()
            .find(|function| function.name == parsed.function)
            .ok_or_else(|| {
                let names = record
                    .functions
                    .iter()
                    .map(|function| function.name.as_str())
                    .collect::<Vec<_>>();
                let meant = nearest(&parsed.function, names.iter().copied());
                let meant =
                    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
                unknown(format!(
                    "`{}` {} has no function `{}`; it has `{}`{meant}",
                    record.name,
                    record.version,
                    parsed.function,
                    names.join("`, `")
                ))
            })?;
        if !kinds.contains(&function.kind) {
            let words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
            return Err(unknown(format!(
                "`{reference}` is a {} function, where a {} is needed",
                function.kind.word(),
                words.join(" or ")
            )));
        }
        Ok(PinnedFunction {
            reference: reference.to_owned(),
            component: record.name.clone(),
            version: record.version.clone(),
            digest: record.digest.clone(),
            function: function.clone(),
        })
    }

    /// Says that a component or its version is not there.
    fn absent(&self, parsed: &FunctionRef) -> String {
        let name = &parsed.component;
        let Some(versions) = self.components.get(name) else {
            let known = self.components.keys().map(String::as_str);
            let meant = nearest(name, known.take(SUGGESTIONS_MAX));
            let meant =
                meant.map_or_else(String::new, |meant| format!(", or did you mean `{meant}`?"));
            return format!("there is no component `{name}`; upload it with `weft deploy`{meant}");
        };
        let versions: Vec<&str> = versions.keys().map(String::as_str).collect();
        format!(
            "`{name}` has no version {}; it has {}",
            parsed.version.as_deref().unwrap_or_default(),
            versions.join(", ")
        )
    }
}
