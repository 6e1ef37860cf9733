//! Statements that are more than queries: those that change tables, COPY, SHOW TABLES and DESCRIBE. They are only
//! parsed here; whoever plans them knows what the names stand for.

use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{self, CopyToSource, CopyToStatement, CreateExternalTable};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion::sql::sqlparser::ast::{
    ColumnDef, CreateTable, CreateTableOptions, CreateView, FileFormat, HiveFormat, HiveIOFormat,
    ObjectName, ObjectType, Query, Statement, Value, ViewColumnDef,
};
use weft_core::Problem;
use weft_protocol::{IfTaken, TableKind};

use crate::describe::described;
use crate::error::planning;
use crate::insert::insert;
use crate::statement::{Shape, bare, invalid, parse_one};

/// A statement that is more than a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Names a query.
    CreateView {
        /// The name.
        name: String,
        /// The query's text.
        query: String,
        /// Treatment of a name that is taken.
        if_taken: IfTaken,
    },
    /// Names files.
    CreateExternalTable(Files),
    /// Writes rows to files and names them.
    CreateTableAs {
        /// The name.
        name: String,
        /// The folder of Parquet files. Without it the cluster keeps the rows.
        location: Option<String>,
        /// The query's text.
        query: String,
        /// Treatment of a name that is taken.
        if_taken: IfTaken,
    },
    /// Forgets a name.
    Drop {
        /// The name.
        name: String,
        /// The kind that it must be of.
        kind: TableKind,
        /// A name that is not there is no error.
        if_exists: bool,
    },
    /// Writes rows to files.
    Copy {
        /// The query's text.
        query: String,
        /// The folder of the files.
        location: String,
        /// The format in lower case, if it is named.
        format: Option<String>,
        /// Columns that name folders.
        partition_by: Vec<String>,
    },
    /// Adds rows to the files of a table.
    Insert {
        /// The table's name.
        name: String,
        /// Columns of the table that the query's are for, in their order; all where there is no list.
        columns: Vec<String>,
        /// The query's text.
        query: String,
    },
    /// Lists tables and views.
    ShowTables,
    /// Lists the columns of a query's rows.
    Describe {
        /// The query's text.
        query: String,
    },
}

/// Files as CREATE EXTERNAL TABLE names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The name.
    pub name: String,
    /// Names and types of the columns, if they are listed.
    pub columns: Vec<(String, DataType)>,
    /// The format in lower case.
    pub format: String,
    /// Paths and patterns.
    pub locations: Vec<String>,
    /// Options: keys in lower case, values as they are written.
    pub options: Vec<(String, String)>,
    /// Treatment of a name that is taken.
    pub if_taken: IfTaken,
}

impl Command {
    /// Parses a text. Nothing if it is a query, or a statement that is not offered.
    pub(crate) async fn parse(state: &SessionState, sql: &str) -> Result<Option<Self>, Problem> {
        let (parsed, _) = parse_one(sql)?;
        Ok(Some(match parsed {
            parser::Statement::CreateExternalTable(create) => {
                Self::CreateExternalTable(files(state, create).await?)
            }
            parser::Statement::CopyTo(copy) => copy_to(copy)?,
            parser::Statement::Statement(statement) => match *statement {
                Statement::CreateView(view) => create_view(view)?,
                Statement::CreateTable(create) => create_table_as(create)?,
                Statement::ShowTables { .. } => Self::ShowTables,
                statement @ (Statement::ExplainTable { .. }
                | Statement::Explain { .. }
                | Statement::ShowColumns { .. }) => match described(statement)? {
                    Some(query) => Self::Describe { query },
                    None => return Ok(None),
                },
                Statement::Insert(statement) => insert(statement)?,
                Statement::Drop {
                    object_type,
                    if_exists,
                    names,
                    cascade,
                    purge,
                    temporary,
                    ..
                } => {
                    let is_plain = !(cascade || purge || temporary);
                    dropped(object_type, names, if_exists, is_plain)?
                }
                _ => return Ok(None),
            },
            parser::Statement::Explain(_) | parser::Statement::Reset(_) => return Ok(None),
        }))
    }
}

/// A name without a schema, in the case that statements read it in.
pub(crate) fn name_of(name: ObjectName) -> Result<String, Problem> {
    bare(object_name_to_table_reference(name, true).map_err(planning)?)
}

/// The text of a query within the bounds of statements: whoever writes it walks its tree.
pub(crate) fn text_of(query: &Query) -> Result<String, Problem> {
    Shape::of(query)?;
    Ok(query.to_string())
}

fn if_taken(or_replace: bool, if_not_exists: bool) -> Result<IfTaken, Problem> {
    match (or_replace, if_not_exists) {
        (false, false) => Ok(IfTaken::Refuse),
        (true, false) => Ok(IfTaken::Replace),
        (false, true) => Ok(IfTaken::Keep),
        (true, true) => Err(invalid(
            "OR REPLACE and IF NOT EXISTS exclude each other: leave one of them out".into(),
        )),
    }
}

fn create_view(view: CreateView) -> Result<Command, Problem> {
    let is_plain = !(view.or_alter
        || view.materialized
        || view.secure
        || view.temporary
        || view.copy_grants
        || view.with_no_schema_binding)
        && view.options == CreateTableOptions::None
        && view.cluster_by.is_empty()
        && view.comment.is_none()
        && view.to.is_none()
        && view.params.is_none();
    let columns = view.columns.iter();
    let is_more = |column: &ViewColumnDef| column.data_type.is_some() || column.options.is_some();
    if !is_plain || columns.clone().any(is_more) {
        return Err(invalid(
            "a view is made by CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name [(columns)] AS query; it holds no rows, \
             so write them to files by COPY if the query takes long"
                .into(),
        ));
    }
    let query = text_of(&view.query)?;
    let names: Vec<String> = columns.map(|column| column.name.to_string()).collect();
    let query = match names.as_slice() {
        [] => query,
        // An alias of a subquery renames its columns.
        names => format!("SELECT * FROM ({query}) AS v ({})", names.join(", ")),
    };
    Ok(Command::CreateView {
        name: name_of(view.name)?,
        query,
        if_taken: if_taken(view.or_replace, view.if_not_exists)?,
    })
}

/// `CREATE TABLE t AS query`, `CREATE TABLE t STORED AS PARQUET LOCATION 'folder/' AS query`, `CREATE TABLE t
/// (columns)`, and nothing more.
fn create_table_as(create: CreateTable) -> Result<Command, Problem> {
    let plain = CreateTableBuilder::new(create.name.clone())
        .or_replace(create.or_replace)
        .if_not_exists(create.if_not_exists)
        .columns(create.columns.clone())
        .hive_formats(create.hive_formats.clone())
        .query(create.query.clone())
        .build();
    if plain != create {
        return Err(not_created());
    }
    let location = location(create.hive_formats)?;
    let query = match (&create.query, create.columns.as_slice(), &location) {
        (Some(query), [], _) => text_of(query)?,
        (None, columns @ [_, ..], None) => no_rows(columns)?,
        _ => return Err(not_created()),
    };
    Ok(Command::CreateTableAs {
        query,
        name: name_of(create.name)?,
        location,
        if_taken: if_taken(create.or_replace, create.if_not_exists)?,
    })
}

/// The error for CREATE TABLE with other clauses than those that are offered.
fn not_created() -> Problem {
    invalid(
        "a table is made by CREATE TABLE name AS query, whose rows the cluster keeps, by CREATE TABLE name (column \
         type, ..), which is kept as well and has no rows at first, by CREATE TABLE name STORED AS PARQUET LOCATION \
         'folder/' AS query, which writes the rows to the folder, or by CREATE EXTERNAL TABLE name STORED AS format \
         LOCATION 'files', which names files that are there; columns have a name and a type, and no constraint"
            .into(),
    )
}

/// The folder that CREATE TABLE writes to, if it names one.
fn location(hive_formats: Option<HiveFormat>) -> Result<Option<String>, Problem> {
    match hive_formats {
        None
        | Some(HiveFormat {
            row_format: None,
            serde_properties: None,
            storage: None,
            location: None,
        }) => Ok(None),
        Some(HiveFormat {
            row_format: None,
            serde_properties: None,
            storage:
                None
                | Some(HiveIOFormat::FileFormat {
                    format: FileFormat::PARQUET,
                }),
            location: Some(location),
        }) => Ok(Some(location)),
        Some(_) => Err(not_created()),
    }
}

/// The query that has columns and no rows.
fn no_rows(columns: &[ColumnDef]) -> Result<String, Problem> {
    let values = columns
        .iter()
        .map(|column| match column.options.as_slice() {
            [] => Ok(format!(
                "CAST(NULL AS {}) AS {}",
                column.data_type, column.name
            )),
            _ => Err(not_created()),
        });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Ok(format!("SELECT {} WHERE false", values.join(", ")))
}

fn dropped(
    object_type: ObjectType,
    mut names: Vec<ObjectName>,
    if_exists: bool,
    is_plain: bool,
) -> Result<Command, Problem> {
    let kind = match object_type {
        ObjectType::Table => Some(TableKind::Table),
        ObjectType::View => Some(TableKind::View),
        _ => None,
    };
    let n = names.len();
    match (kind, names.pop()) {
        (Some(kind), Some(name)) if is_plain && n == 1 => Ok(Command::Drop {
            name: name_of(name)?,
            kind,
            if_exists,
        }),
        _ => Err(invalid(
            "DROP takes away one table or view: DROP TABLE [IF EXISTS] name, DROP VIEW [IF EXISTS] name".into(),
        )),
    }
}

fn copy_to(copy: CopyToStatement) -> Result<Command, Problem> {
    if let Some((key, _)) = copy.options.first() {
        return Err(invalid(format!(
            "COPY has no option `{}`: it takes STORED AS and PARTITIONED BY",
            key.escape_debug()
        )));
    }
    let query = match copy.source {
        CopyToSource::Query(query) => text_of(&query)?,
        CopyToSource::Relation(name) => format!("SELECT * FROM {name}"),
    };
    Ok(Command::Copy {
        query,
        location: copy.target,
        format: copy.stored_as.map(|format| format.to_lowercase()),
        partition_by: copy.partitioned_by,
    })
}

async fn files(state: &SessionState, create: CreateExternalTable) -> Result<Files, Problem> {
    let is_more = create.temporary
        || create.unbounded
        || !create.order_exprs.is_empty()
        || !create.table_partition_cols.is_empty()
        || !create.constraints.is_empty()
        || create
            .columns
            .iter()
            .any(|column| !column.options.is_empty());
    if is_more {
        return Err(invalid(
            "CREATE EXTERNAL TABLE takes columns with names and types, STORED AS, LOCATION, and OPTIONS".into(),
        ));
    }
    let options = create.options.iter();
    let options = options.map(|(key, value)| (key.to_lowercase(), value_of(value)));
    Ok(Files {
        name: name_of(create.name.clone())?,
        format: create.file_type.to_lowercase(),
        locations: create.locations.clone(),
        options: options.collect(),
        if_taken: if_taken(create.or_replace, create.if_not_exists)?,
        columns: columns(state, create).await?,
    })
}

/// The columns of a table, in types of Arrow.
async fn columns(
    state: &SessionState,
    create: CreateExternalTable,
) -> Result<Vec<(String, DataType)>, Problem> {
    // Options are ours, and not those of DataFusion.
    let create = CreateExternalTable {
        options: Vec::new(),
        ..create
    };
    let create = parser::Statement::CreateExternalTable(create);
    let plan = state.statement_to_plan(create).await.map_err(planning)?;
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) = plan else {
        return Err(invalid("the statement creates no table".into()));
    };
    let fields = create.schema.fields().iter();
    let columns = fields.map(|field| (field.name().clone(), field.data_type().clone()));
    Ok(columns.collect())
}

fn value_of(value: &Value) -> String {
    match value {
        Value::SingleQuotedString(text)
        | Value::DoubleQuotedString(text)
        | Value::EscapedStringLiteral(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Session;

    /// The command that a text is. Everything that a parser awaits is there.
    fn parse(sql: &str) -> Result<Option<Command>, Problem> {
        let session = Session::new();
        let mut parsing = std::pin::pin!(session.command(sql));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match parsing.as_mut().poll(&mut context) {
            std::task::Poll::Ready(parsed) => parsed,
            std::task::Poll::Pending => panic!("parsing waits"),
        }
    }

    #[track_caller]
    fn command(sql: &str) -> Command {
        let parsed = parse(sql).unwrap_or_else(|problem| panic!("{sql}: {problem}"));
        parsed.unwrap_or_else(|| panic!("{sql} is no command"))
    }

    #[test]
    fn queries_are_no_commands() {
        for sql in [
            "SELECT 1",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "EXPLAIN SELECT 1",
        ] {
            assert_eq!(parse(sql), Ok(None), "{sql}");
        }
    }

    #[test]
    fn views_keep_the_text_of_their_query() {
        let view = |name: &str, query: &str, if_taken| Command::CreateView {
            name: name.into(),
            query: query.into(),
            if_taken,
        };
        assert_eq!(
            command("CREATE VIEW Daily AS SELECT a FROM 'x/*.csv';"),
            view("daily", "SELECT a FROM 'x/*.csv'", IfTaken::Refuse)
        );
        assert_eq!(
            command("CREATE OR REPLACE VIEW \"Daily\" (x, \"Y\") AS SELECT 1, 2"),
            view(
                "Daily",
                "SELECT * FROM (SELECT 1, 2) AS v (x, \"Y\")",
                IfTaken::Replace
            )
        );
    }

    #[test]
    fn rows_go_to_a_folder_that_is_named() {
        let made = Command::CreateTableAs {
            name: "t".into(),
            location: Some("out/t/".into()),
            query: "SELECT 1 AS a".into(),
            if_taken: IfTaken::Keep,
        };
        let sql =
            "CREATE TABLE IF NOT EXISTS t STORED AS PARQUET LOCATION 'out/t/' AS SELECT 1 AS a";
        assert_eq!(command(sql), made);
        let kept = Command::CreateTableAs {
            name: "t".into(),
            location: None,
            query: "SELECT 1 AS a".into(),
            if_taken: IfTaken::Refuse,
        };
        assert_eq!(command("CREATE TABLE T AS SELECT 1 AS a"), kept);
        let empty = Command::CreateTableAs {
            name: "t".into(),
            location: None,
            query:
                "SELECT CAST(NULL AS INT) AS a, CAST(NULL AS DECIMAL(12,2)) AS \"B\" WHERE false"
                    .into(),
            if_taken: IfTaken::Replace,
        };
        let sql = "CREATE OR REPLACE TABLE t (a INT, \"B\" DECIMAL(12, 2))";
        assert_eq!(command(sql), empty);
        let copied = Command::Copy {
            query: "SELECT 1 AS a".into(),
            location: "out/t/".into(),
            format: Some("csv".into()),
            partition_by: Vec::new(),
        };
        let sql = "COPY (SELECT 1 AS a) TO 'out/t/' STORED AS CSV";
        assert_eq!(command(sql), copied);
    }

    #[test]
    fn files_have_columns_in_types_of_arrow() {
        let sql = "CREATE EXTERNAL TABLE trips (id BIGINT, \"City\" VARCHAR, fare DECIMAL(12, 2)) STORED AS CSV \
                   LOCATION 'trips/*.csv' OPTIONS (delimiter ';', format.has_header false)";
        let files = Files {
            name: "trips".into(),
            columns: vec![
                ("id".into(), DataType::Int64),
                ("City".into(), DataType::Utf8),
                ("fare".into(), DataType::Decimal128(12, 2)),
            ],
            format: "csv".into(),
            locations: vec!["trips/*.csv".into()],
            options: vec![
                ("delimiter".into(), ";".into()),
                ("format.has_header".into(), "false".into()),
            ],
            if_taken: IfTaken::Refuse,
        };
        assert_eq!(command(sql), Command::CreateExternalTable(files));
    }

    #[test]
    fn rows_are_added_to_a_table() {
        let insert = |columns: &[&str], query: &str| Command::Insert {
            name: "t".into(),
            columns: columns.iter().map(|name| (*name).into()).collect(),
            query: query.into(),
        };
        let sql = "INSERT INTO T VALUES (1, 'x'), (2, NULL)";
        assert_eq!(command(sql), insert(&[], "VALUES (1, 'x'), (2, NULL)"));
        let sql = "INSERT INTO t (b, \"A\") SELECT 1, 2 FROM u";
        assert_eq!(command(sql), insert(&["b", "A"], "SELECT 1, 2 FROM u"));
        for (sql, query) in [
            (
                "INSERT INTO t SELECT 1, 1, NULL AS x",
                "SELECT 1, 1 AS \"value 2\", NULL AS x",
            ),
            (
                "INSERT INTO t SELECT u.id, *, v.ID FROM u, v ORDER BY id",
                "SELECT u.id, *, v.ID AS \"value 3\" FROM u, v ORDER BY id",
            ),
        ] {
            assert_eq!(command(sql), insert(&[], query));
        }
    }

    #[test]
    fn columns_are_those_of_a_query() {
        for (sql, query) in [
            ("DESCRIBE Trips", "SELECT * FROM Trips"),
            ("DESC \"Trips\";", "SELECT * FROM \"Trips\""),
            ("describe 'data/*.csv'", "SELECT * FROM 'data/*.csv'"),
            ("DESCRIBE SELECT 1 AS a", "SELECT 1 AS a"),
            ("SHOW COLUMNS FROM trips", "SELECT * FROM trips"),
            ("SHOW COLUMNS IN trips", "SELECT * FROM trips"),
        ] {
            let query = query.into();
            assert_eq!(command(sql), Command::Describe { query }, "{sql}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_with_advice() {
        for (sql, words) in [
            ("DESCRIBE EXTENDED t", "without other words"),
            ("DESCRIBE DROP TABLE t", "without other words"),
            ("SHOW FULL COLUMNS FROM t", "without other words"),
            ("SHOW COLUMNS FROM t LIKE 'a%'", "without other words"),
            ("CREATE TABLE t STORED AS PARQUET AS SELECT 1", "LOCATION"),
            ("CREATE TABLE t", "(column type, ..)"),
            ("CREATE TABLE t (a INT NOT NULL)", "no constraint"),
            ("CREATE TABLE t (a INT, PRIMARY KEY (a))", "no constraint"),
            ("CREATE TABLE t (a INT) LOCATION 'x/'", "LOCATION"),
            ("CREATE TABLE t (a INT) AS SELECT 1", "LOCATION"),
            (
                "CREATE TEMPORARY TABLE t LOCATION 'x/' AS SELECT 1",
                "LOCATION",
            ),
            ("CREATE MATERIALIZED VIEW v AS SELECT 1", "COPY"),
            ("INSERT OVERWRITE t SELECT 1", "INSERT INTO"),
            ("INSERT INTO t VALUES (1) RETURNING a", "INSERT INTO"),
            (
                "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
                "INSERT INTO",
            ),
            ("DROP TABLE a, b", "one table"),
            ("DROP TABLE a CASCADE", "one table"),
            ("DROP SCHEMA a", "one table"),
            ("CREATE VIEW s.v AS SELECT 1", "schema"),
        ] {
            let problem = parse(sql).expect_err(sql);
            assert!(problem.detail.contains(words), "{sql}: {problem}");
        }
    }
}
