//! Lists that drivers ask for. Weft has no catalogs and no schemas: tables are listed in those whose name is empty.

use weft_control::Tables;
use weft_protocol::{Listing, ListingColumn, ListingValues, TableKind};

use super::grpc::{Code, Status};
use super::messages::{GetDbSchemas, GetTables, List};

/// Name of the one catalog, and of the one schema in it.
const NO_NAME: &str = "";
/// Sign before one that stands for itself in a pattern.
const ESCAPE: char = '\\';
/// Bytes of a pattern: more than any name needs.
const MAX_PATTERN_BYTES: usize = 1 << 10;
/// Types of tables that a list may be asked for, of the two that there are.
const MAX_TABLE_TYPES: usize = 16;

/// Checks the bounds of what a list is asked for. Errors: `InvalidArgument`.
pub(super) fn check(list: &List) -> Result<(), Status> {
    let (patterns, n_types) = match list {
        List::Tables(asked) => (
            [
                &asked.db_schema_filter_pattern,
                &asked.table_name_filter_pattern,
            ],
            asked.table_types.len(),
        ),
        List::DbSchemas(asked) => ([&asked.db_schema_filter_pattern, &None], 0),
        List::Catalogs | List::TableTypes => return Ok(()),
    };
    let mut patterns = patterns.into_iter().flatten();
    let what = if patterns.any(|pattern| pattern.len() > MAX_PATTERN_BYTES) {
        format!("a pattern of names is longer than {MAX_PATTERN_BYTES} bytes: use a shorter one")
    } else if n_types > MAX_TABLE_TYPES {
        format!(
            "{n_types} types of tables are asked for, of {MAX_TABLE_TYPES} at most: there are `TABLE` and `VIEW`"
        )
    } else {
        return Ok(());
    };
    Err(Status::new(Code::InvalidArgument, what))
}

/// The rows of a list, in the columns that Flight SQL wants.
pub(super) fn rows(list: &List, tables: &Tables) -> Listing {
    let columns = match list {
        List::Catalogs => vec![required("catalog_name", vec![NO_NAME.into()])],
        List::DbSchemas(asked) => schemas(asked),
        List::Tables(asked) => of_tables(asked, tables),
        List::TableTypes => {
            let types = [TableKind::Table, TableKind::View].map(table_type);
            vec![required("table_type", types.to_vec())]
        }
    };
    Listing { columns }
}

fn schemas(asked: &GetDbSchemas) -> Vec<ListingColumn> {
    let is_it = is_none(asked.catalog.as_deref())
        && matches(asked.db_schema_filter_pattern.as_deref(), NO_NAME);
    let names = vec![NO_NAME.to_owned(); usize::from(is_it)];
    vec![
        optional("catalog_name", names.clone()),
        required("db_schema_name", names),
    ]
}

fn of_tables(asked: &GetTables, tables: &Tables) -> Vec<ListingColumn> {
    let are_all = is_none(asked.catalog.as_deref())
        && matches(asked.db_schema_filter_pattern.as_deref(), NO_NAME);
    let of_type = |kind: TableKind| {
        let is_it = |one: &String| one.eq_ignore_ascii_case(kind.word());
        asked.table_types.is_empty() || asked.table_types.iter().any(is_it)
    };
    let listed = tables.iter().filter(|(name, record)| {
        are_all && matches(asked.table_name_filter_pattern.as_deref(), name) && of_type(record.kind)
    });
    let (mut names, mut types, mut definitions) = (Vec::new(), Vec::new(), Vec::new());
    for (name, record) in listed {
        names.push(name.clone());
        types.push(table_type(record.kind));
        if asked.include_schema {
            definitions.push((name.clone(), record.definition.clone()));
        }
    }
    let no_names = vec![NO_NAME.to_owned(); names.len()];
    let mut columns = vec![
        optional("catalog_name", no_names.clone()),
        optional("db_schema_name", no_names),
        required("table_name", names),
        required("table_type", types),
    ];
    if asked.include_schema {
        columns.push(ListingColumn {
            name: "table_schema".into(),
            values: ListingValues::Schemas {
                tables: definitions,
            },
        });
    }
    columns
}

fn required(name: &str, values: Vec<String>) -> ListingColumn {
    texts(name, values, false)
}

fn optional(name: &str, values: Vec<String>) -> ListingColumn {
    texts(name, values, true)
}

fn texts(name: &str, values: Vec<String>, nullable: bool) -> ListingColumn {
    ListingColumn {
        name: name.to_owned(),
        values: ListingValues::Texts { values, nullable },
    }
}

fn table_type(kind: TableKind) -> String {
    kind.word().to_ascii_uppercase()
}

/// Whether a catalog is the one without a name, or any.
fn is_none(catalog: Option<&str>) -> bool {
    catalog.is_none_or(|name| name == NO_NAME)
}

/// Whether a name fits a pattern of `LIKE`; every name fits none.
fn matches(pattern: Option<&str>, name: &str) -> bool {
    let Some(pattern) = pattern else {
        return true;
    };
    let mut signs = pattern.chars();
    // For each number of letters of the name, whether they fit the signs so far.
    let letters: Vec<char> = name.chars().collect();
    let mut fits = vec![false; letters.len() + 1];
    fits[0] = true;
    while let Some(sign) = signs.next() {
        if sign == '%' {
            let first = fits.iter().position(|fits| *fits).unwrap_or(fits.len());
            fits[first..].fill(true);
            continue;
        }
        let wanted = match sign {
            '_' => None,
            ESCAPE => Some(signs.next().unwrap_or(ESCAPE)),
            letter => Some(letter),
        };
        for end in (1..fits.len()).rev() {
            let is_it = wanted.is_none_or(|wanted| wanted == letters[end - 1]);
            fits[end] = fits[end - 1] && is_it;
        }
        fits[0] = false;
        if !fits.contains(&true) {
            return false;
        }
    }
    fits[letters.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%", "abc", true),
            ("a%c", "abbc", true),
            ("a%c", "abbcd", false),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            (r"a\_c", "abc", false),
            (r"a\_c", "a_c", true),
            ("%b%", "abc", true),
            ("%é_", "aéb", true),
            ("b", "abc", false),
            ("x%", "abc", false),
            ("%%c%", "abc", true),
        ] {
            assert_eq!(matches(Some(pattern), name), expected, "{pattern} {name}");
        }
        assert!(matches(None, "any"));
    }

    #[test]
    fn what_is_asked_for_has_bounds() {
        let pattern = |n_bytes: usize| Some("%".repeat(n_bytes));
        let schemas = |n_bytes: usize| {
            List::DbSchemas(GetDbSchemas {
                db_schema_filter_pattern: pattern(n_bytes),
                ..GetDbSchemas::default()
            })
        };
        let tables = |n_bytes: usize, n_types: usize| {
            List::Tables(GetTables {
                table_name_filter_pattern: pattern(n_bytes),
                table_types: vec!["TABLE".into(); n_types],
                ..GetTables::default()
            })
        };
        for (list, is_right) in [
            (List::Catalogs, true),
            (schemas(MAX_PATTERN_BYTES), true),
            (schemas(MAX_PATTERN_BYTES + 1), false),
            (tables(MAX_PATTERN_BYTES, MAX_TABLE_TYPES), true),
            (tables(MAX_PATTERN_BYTES + 1, 1), false),
            (tables(1, MAX_TABLE_TYPES + 1), false),
        ] {
            let code = check(&list).err().map(|status| status.code);
            let expected = (!is_right).then_some(Code::InvalidArgument);
            assert_eq!(code, expected, "{list:?}");
        }
    }

    #[test]
    fn lists_have_the_columns_of_flight_sql() {
        let asked = GetTables {
            include_schema: true,
            ..GetTables::default()
        };
        for (list, expected) in [
            (List::Catalogs, "catalog_name"),
            (List::TableTypes, "table_type"),
            (
                List::DbSchemas(GetDbSchemas::default()),
                "catalog_name db_schema_name",
            ),
            (
                List::Tables(asked),
                "catalog_name db_schema_name table_name table_type table_schema",
            ),
        ] {
            let listing = rows(&list, &Tables::default());
            let names: Vec<&str> = listing
                .columns
                .iter()
                .map(|one| one.name.as_str())
                .collect();
            assert_eq!(names.join(" "), expected);
        }
    }
}
