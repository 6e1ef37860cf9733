//! Tables and views: names that a tenant's statements read. Definitions are opaque here: executors read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::job::{JobSpec, Work, nearest};
use weft_core::{ErrorCode, JobId, Problem};
use weft_protocol::{
    Extended, IfTaken, MAX_DEFINITION_BYTES, MAX_KEPT_PARTS, MAX_TABLE_NAME_BYTES, TableChange,
    TableKind,
};

use crate::bounds::{MAX_KEPT_TABLES_BYTES, MAX_TABLES, MAX_TABLES_BYTES};

/// One table or view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// The kind.
    pub kind: TableKind,
    /// The definition, as an executor wrote it.
    pub definition: String,
    /// When it was put there, in Unix milliseconds.
    pub changed_ms: u64,
    /// The table's rows, if the cluster keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptRows>,
}

/// Rows that the cluster keeps for a table, for as long as the table is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRows {
    /// The job whose kept outputs they are; the last one, if others have added rows.
    pub job: JobId,
    /// Bytes of their files.
    pub bytes: u64,
    /// Jobs before it whose kept outputs are rows of the table, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<JobId>,
}

/// The tables and views of one tenant, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tables {
    by_name: BTreeMap<String, TableRecord>,
}

impl Tables {
    /// The table or view of a name.
    pub fn get(&self, name: &str) -> Option<&TableRecord> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &TableRecord)> {
        self.by_name.iter()
    }

    /// Jobs whose kept outputs are the rows of tables.
    pub fn kept_jobs(&self) -> impl Iterator<Item = &JobId> {
        let kept = self
            .by_name
            .values()
            .filter_map(|table| table.kept.as_ref());
        kept.flat_map(|kept| kept.earlier.iter().chain([&kept.job]))
    }

    /// Returns the definitions that planning a job needs: those of all if the job has SQL stages, otherwise none.
    pub fn definitions(&self, spec: &JobSpec) -> BTreeMap<String, String> {
        let mut stages = spec.stages.iter();
        match stages.any(|stage| matches!(stage.work, Work::Sql { .. })) {
            true => {
                let definitions = self.by_name.iter();
                definitions
                    .map(|(name, record)| (name.clone(), record.definition.clone()))
                    .collect()
            }
            false => BTreeMap::new(),
        }
    }

    /// Checks that a change can be made as things stand.
    ///
    /// Errors: `invalid_job` if the name is wrong, taken, or of the other kind, `version_conflict` if the table has
    /// other rows by now, `not_found` if there is nothing to drop, `too_large` if a bound is reached.
    pub(crate) fn check(&self, change: &TableChange) -> Result<(), Problem> {
        match change {
            TableChange::Put {
                name,
                kind,
                definition,
                if_taken,
                extends,
            } => {
                self.check_put(name, *kind, definition, *if_taken)?;
                self.check_extended(name, extends.as_ref())
            }
            TableChange::Drop {
                name,
                kind,
                if_exists,
            } => match self.by_name.get(name) {
                Some(found) => check_kind(name, found.kind, *kind),
                None if *if_exists => Ok(()),
                None => Err(self.missing(name)),
            },
        }
    }

    /// Makes a change, or none at all. `kept`: rows of the table that is put there, if the cluster keeps them.
    ///
    /// Errors: those of [`check`](Self::check), and `too_large` if the tenant's tables would have too many rows kept.
    pub(crate) fn apply(
        &mut self,
        change: &TableChange,
        kept: Option<KeptRows>,
        at_ms: u64,
    ) -> Result<(), Problem> {
        self.check(change)?;
        match change {
            TableChange::Put {
                name,
                kind,
                definition,
                if_taken,
                extends,
            } => {
                if *if_taken == IfTaken::Keep && self.by_name.contains_key(name) {
                    return Ok(());
                }
                let kept = kept.map(|kept| self.extended(name, kept, extends.as_ref()));
                if let Some(kept) = &kept {
                    self.check_kept(name, kept)?;
                }
                let record = TableRecord {
                    kind: *kind,
                    definition: definition.clone(),
                    changed_ms: at_ms,
                    kept,
                };
                self.by_name.insert(name.clone(), record);
            }
            TableChange::Drop { name, .. } => drop(self.by_name.remove(name)),
        }
        Ok(())
    }

    fn check_put(
        &self,
        name: &str,
        kind: TableKind,
        definition: &str,
        if_taken: IfTaken,
    ) -> Result<(), Problem> {
        check_name(name)?;
        let found = self.by_name.get(name);
        match (found, if_taken) {
            (None, _) => {}
            (Some(_), IfTaken::Keep) => return Ok(()),
            (Some(found), IfTaken::Refuse) => {
                let word = found.kind.word();
                return Err(invalid(format!(
                    "there is a {word} `{name}` already: use another name, CREATE OR REPLACE, or IF NOT EXISTS"
                )));
            }
            (Some(found), IfTaken::Replace) => check_kind(name, found.kind, Some(kind))?,
        }
        if definition.len() > MAX_DEFINITION_BYTES {
            return Err(too_large(format!(
                "the definition of `{name}` has {} bytes; {MAX_DEFINITION_BYTES} are allowed",
                definition.len()
            )));
        }
        if found.is_none() && self.by_name.len() >= MAX_TABLES {
            return Err(too_large(format!(
                "the tenant has {MAX_TABLES} tables and views, which is the limit: drop some"
            )));
        }
        let others = self.by_name.iter().filter(|(other, _)| *other != name);
        let others: usize = others
            .map(|(name, record)| bytes(name, &record.definition))
            .sum();
        if others + bytes(name, definition) > MAX_TABLES_BYTES {
            return Err(too_large(format!(
                "the definitions of all tables and views would have more than {MAX_TABLES_BYTES} bytes: drop some"
            )));
        }
        Ok(())
    }

    fn kept(&self, name: &str) -> Option<&KeptRows> {
        self.by_name.get(name).and_then(|found| found.kept.as_ref())
    }

    /// Refuses to go on from rows of a table that are others by now, and more parts than one may have.
    fn check_extended(&self, name: &str, extends: Option<&Extended>) -> Result<(), Problem> {
        let Some(Extended { last, stay }) = extends else {
            return Ok(());
        };
        let Some(kept) = self.kept(name).filter(|kept| kept.job == *last) else {
            let detail = format!(
                "the rows of `{}` were dropped, replaced or added to while the statement ran: run it again",
                name.escape_debug()
            );
            return Err(Problem::new(ErrorCode::VersionConflict, detail));
        };
        match *stay && kept.earlier.len() + 2 > MAX_KEPT_PARTS {
            true => Err(too_large(format!(
                "the rows of `{name}` would be those of more than {MAX_KEPT_PARTS} jobs: write them anew by CREATE OR \
                 REPLACE TABLE {name} AS SELECT * FROM {name}"
            ))),
            false => Ok(()),
        }
    }

    /// New rows of a table, with those that stay beside them.
    fn extended(&self, name: &str, new: KeptRows, extends: Option<&Extended>) -> KeptRows {
        let stay = extends.is_some_and(|extended| extended.stay);
        match self.kept(name).filter(|_| stay) {
            None => new,
            Some(found) => KeptRows {
                bytes: new.bytes.saturating_add(found.bytes),
                earlier: found.earlier.iter().chain([&found.job]).cloned().collect(),
                ..new
            },
        }
    }

    fn check_kept(&self, name: &str, kept: &KeptRows) -> Result<(), Problem> {
        let others = self.by_name.iter().filter(|(other, _)| *other != name);
        let others = others.filter_map(|(_, record)| record.kept.as_ref());
        let bytes = others.fold(kept.bytes, |sum, kept| sum.saturating_add(kept.bytes));
        match bytes > MAX_KEPT_TABLES_BYTES {
            true => Err(too_large(format!(
                "with `{name}` the cluster would keep {bytes} bytes of tables for the tenant; {MAX_KEPT_TABLES_BYTES} \
                 are allowed: drop some, or give the table a LOCATION"
            ))),
            false => Ok(()),
        }
    }

    /// The error for a name that is not there.
    pub fn missing(&self, name: &str) -> Problem {
        let meant = nearest(name, self.by_name.keys().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        let detail = format!("there is no table or view `{}`{meant}", name.escape_debug());
        Problem::new(ErrorCode::NotFound, detail)
    }
}

fn bytes(name: &str, definition: &str) -> usize {
    name.len() + definition.len()
}

fn check_kind(name: &str, found: TableKind, wanted: Option<TableKind>) -> Result<(), Problem> {
    match wanted {
        Some(wanted) if wanted != found => {
            let found = found.word();
            Err(invalid(format!(
                "`{name}` is a {found}, not a {}: DROP {} takes it away",
                wanted.word(),
                found.to_uppercase()
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses names that are unlike names: a path in `FROM` must not be mistaken for a table.
fn check_name(name: &str) -> Result<(), Problem> {
    let fits = (1..=MAX_TABLE_NAME_BYTES).contains(&name.len())
        && !name.contains(|character: char| character == '/' || character.is_control());
    match fits {
        true => Ok(()),
        false => Err(invalid(format!(
            "`{}` is not a name for a table: 1 to {MAX_TABLE_NAME_BYTES} bytes without `/` and control characters",
            name.escape_debug()
        ))),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidJob, detail)
}

fn too_large(detail: String) -> Problem {
    Problem::new(ErrorCode::TooLarge, detail)
}
