//! Folders of a path whose names say values of columns, `data/year=*/*.parquet`, as Hive lays tables out.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use weft_core::{ErrorCode, Problem};
use weft_sql::ScanFilter;

use super::inputs::Listed;
use super::patterns;
use crate::folders::{data_type, decoded, value, without_escapes};
use crate::plan::FileSplit;
use crate::scan::Bounds;

/// A folder of a path.
struct Folder {
    /// Name of the column.
    name: String,
    place: Place,
}

/// Position of a folder in the paths of files: from their end if it stands behind `**`.
#[derive(Clone, Copy)]
enum Place {
    FromStart(usize),
    FromEnd(usize),
}

/// The columns that folders give a table.
pub(super) struct Folders {
    pub(super) schema: SchemaRef,
    /// For each split of the table, a text for each column; nothing where it is null.
    values: Vec<Vec<Option<String>>>,
}

impl Folders {
    /// The columns of the folders that a path names. `path`: as the statement has it; `pattern`: absolute.
    ///
    /// Errors: `SchemaMismatch` if a column is there already, `InvalidJob` if it stands between two `**`.
    pub(super) fn of(path: &str, pattern: &str, listed: &Listed) -> Result<Self, Problem> {
        let folders = folders(path, pattern)?;
        check_names(path, &folders, listed)?;
        let of_split = |split: &FileSplit| {
            let values = folders.iter().map(|folder| folder.value(&split.path));
            values.collect::<Result<Vec<_>, _>>()
        };
        let values = listed.splits.iter().map(of_split);
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let fields = folders.iter().enumerate().map(|(position, folder)| {
            let all = values.iter().filter_map(|of| of[position].as_deref());
            Field::new(&folder.name, data_type(all), true)
        });
        Ok(Self {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            values,
        })
    }

    /// Columns of a table that has none of folders.
    pub(super) fn none() -> Self {
        Self {
            schema: crate::schema::empty(),
            values: Vec::new(),
        }
    }

    /// The texts of some of the columns, for a split.
    pub(super) fn texts(&self, split: usize, columns: &[usize]) -> Vec<Option<String>> {
        let texts = columns
            .iter()
            .map(|column| self.values[split][*column].clone());
        texts.collect()
    }

    /// Number of values of a column, of which null is none.
    pub(super) fn n_values(&self, column: usize) -> u64 {
        let texts = self.values.iter().filter_map(|of| of[column].as_deref());
        texts.collect::<BTreeSet<_>>().len() as u64
    }

    /// For each split, whether its folders pass the filters that are about them.
    pub(super) fn may_pass(
        &self,
        n_splits: usize,
        filters: &[ScanFilter],
    ) -> Result<Vec<bool>, Problem> {
        let mut wanted = vec![true; n_splits];
        for filter in filters {
            let Ok(column) = self.schema.index_of(&filter.column) else {
                continue;
            };
            let Some(values) = self.column(column)? else {
                continue;
            };
            let judged = Bounds::of_values(&values).may_pass(filter)?;
            wanted
                .iter_mut()
                .zip(judged)
                .for_each(|(wanted, judged)| *wanted &= judged);
        }
        Ok(wanted)
    }

    /// The values of a column, one for each split. Nothing if there is no split.
    fn column(&self, column: usize) -> Result<Option<ArrayRef>, Problem> {
        let data_type = self.schema.field(column).data_type();
        let texts = self.values.iter().map(|of| of[column].as_deref());
        let values = texts
            .map(|text| value(text, data_type))
            .collect::<Option<Vec<_>>>();
        let internal = |text: String| Problem::new(ErrorCode::Internal, text);
        let values = values.ok_or_else(|| internal("folders have values of two types".into()))?;
        if values.is_empty() {
            return Ok(None);
        }
        let array = ScalarValue::iter_to_array(values);
        array.map(Some).map_err(|error| internal(error.to_string()))
    }
}

impl Folder {
    /// The value that the path of a file has for the column.
    fn value(&self, path: &str) -> Result<Option<String>, Problem> {
        let parts: Vec<&str> = parts(path).collect();
        let position = match self.place {
            Place::FromStart(position) => Some(position),
            Place::FromEnd(n) => parts.len().checked_sub(n),
        };
        let part = position.and_then(|position| parts.get(position));
        let (_, text) = part.and_then(|part| part.split_once('=')).ok_or_else(|| {
            let name = &self.name;
            let detail = format!("`{path}` does not lie in a folder `{name}=..`, as its path says");
            Problem::new(ErrorCode::NoInput, detail)
        })?;
        Ok(decoded(text))
    }
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// The folders `name=..` among what the statement says of a path: where it begins is not for it to say.
fn folders(path: &str, pattern: &str) -> Result<Vec<Folder>, Problem> {
    let own = path.strip_prefix("file://").unwrap_or(path);
    let own = parts(own).rev().take_while(|part| *part != "..");
    let n_own = own.filter(|part| *part != ".").count();
    let all: Vec<&str> = parts(pattern).collect();
    let first_any = all.iter().position(|part| *part == "**");
    let last_any = all.iter().rposition(|part| *part == "**");
    let own = all.len().saturating_sub(n_own)..all.len().saturating_sub(1);
    let mut folders = Vec::new();
    for position in own {
        let named = all[position].split_once('=');
        let name = named.and_then(|(name, _)| patterns::literal(name));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            continue;
        };
        let place = match (first_any, last_any) {
            (Some(first), Some(last)) if first < position && position < last => {
                let detail = format!(
                    "`{path}` has the folder `{name}=..` between two `**`, where it cannot be told which folder \
                     is meant: write `*` for each folder before or behind it"
                );
                return Err(Problem::new(ErrorCode::InvalidJob, detail));
            }
            (Some(first), _) if first < position => Place::FromEnd(all.len() - position),
            _ => Place::FromStart(position),
        };
        let name = without_escapes(&name);
        folders.push(Folder { name, place });
    }
    Ok(folders)
}

/// Fails for columns that files, or other folders, have as well.
fn check_names(path: &str, folders: &[Folder], listed: &Listed) -> Result<(), Problem> {
    for (position, Folder { name, .. }) in folders.iter().enumerate() {
        let wrong = |what: String| {
            let detail = format!("`{path}`: {what}");
            Err(Problem::new(ErrorCode::SchemaMismatch, detail))
        };
        if listed.schema.index_of(name).is_ok() {
            return wrong(format!(
                "its files have a column `{name}`, and so have its folders, `{name}=..`; write `*` or `**` for the \
                 folder, and the files' column is read"
            ));
        }
        if folders[..position].iter().any(|other| other.name == *name) {
            return wrong(format!("two of its folders give the column `{name}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, pattern: &str, file: &str, expected: &[(&str, Option<&str>)]) {
        let folders = folders(path, pattern).expect("it is right");
        let found = folders.iter().map(|folder| {
            let value = folder.value(file).expect("the file matches");
            (folder.name.clone(), value)
        });
        let expected = expected.iter().map(|(name, value)| {
            let value = value.map(str::to_owned);
            ((*name).to_owned(), value)
        });
        assert_eq!(
            found.collect::<Vec<_>>(),
            expected.collect::<Vec<_>>(),
            "{path}"
        );
    }

    #[test]
    fn folders_of_a_path_name_columns() {
        let null = "__HIVE_DEFAULT_PARTITION__";
        check(
            "data/year=*/month=*/*.parquet",
            "/run=3/data/year=*/month=*/*.parquet",
            &format!("/run=3/data/year=2026/month={null}/a=b.parquet"),
            &[("year", Some("2026")), ("month", None)],
        );
        check(
            "./year=2026/x.csv",
            "/base/year=2026/x.csv",
            "/base/year=2026/x.csv",
            &[("year", Some("2026"))],
        );
        check(
            "../other/a%20b=*/*.csv",
            "/base/other/a%20b=*/*.csv",
            "/base/other/a%20b=c%3Dd/x.csv",
            &[("a b", Some("c=d"))],
        );
        check(
            "file:///year=*/**/day=?/*.csv",
            "/year=*/**/day=?/*.csv",
            "/year=1/day=3/year=4/day=2/x.csv",
            &[("year", Some("1")), ("day", Some("2"))],
        );
        check(
            "data/*=1/a=1.csv",
            "/data/*=1/a=1.csv",
            "/data/b=1/a=1.csv",
            &[],
        );
    }

    #[test]
    fn a_folder_between_two_stars_is_refused() {
        let path = "/a/**/day=*/**/*.csv";
        let problem = folders(path, path).err().expect("it is refused");
        assert_eq!(problem.code, ErrorCode::InvalidJob);
    }
}
