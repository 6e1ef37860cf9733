//! Statements as they are written: parsed, bounded, and not yet planned.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::{self, DFParserBuilder};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, Expr, Select, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use weft_core::job::nearest;
use weft_core::{ErrorCode, Problem};

use crate::calls::take_calls;
use crate::error::{planning, too_deep, unparsed};
use crate::table::Table;

/// Words and operators of a statement, without literals, commas and parentheses. Chains of operators become trees
/// as deep as they are long, and whoever walks a tree, or drops it, needs a stack as deep.
const WORDS_MAX: usize = 10_000;
/// Levels of an expression.
const LEVELS_MAX: usize = 1_000;
/// Tables and selects of a statement.
const RELATIONS_MAX: usize = 256;

/// One query, parsed.
#[derive(Debug, Clone)]
pub struct Statement {
    parsed: parser::Statement,
    tables: Vec<String>,
    functions: Vec<String>,
}

impl Statement {
    pub(crate) fn parse(sql: &str) -> Result<Self, Problem> {
        let tokens = tokens(sql)?;
        let mut parser = DFParserBuilder::new(tokens).build().map_err(planning)?;
        let mut statements = parser.parse_statements().map_err(planning)?;
        let n = statements.len();
        let Some(mut parsed) = statements.pop_front().filter(|_| n == 1) else {
            return Err(invalid(match n {
                0 => "the text holds no statement; write a SELECT".to_owned(),
                _ => {
                    format!("the text holds {n} statements; a stage runs one, so give each a stage")
                }
            }));
        };
        let query = query(&parsed)?;
        let mut shape = Shape::default();
        if let ControlFlow::Break(problem) = query.visit(&mut shape) {
            return Err(*problem);
        }
        let (references, _) = resolve_table_references(&parsed, true).map_err(planning)?;
        let functions = &shape.called - &shape.read;
        let tables = references
            .into_iter()
            .filter(|name| !functions.contains(name))
            .map(bare)
            .collect::<Result<Vec<_>, _>>()?;
        let functions = take_calls(&mut parsed);
        Ok(Self {
            parsed,
            tables,
            functions,
        })
    }

    /// Functions of components that the statement calls, as references, sorted: `component/function`.
    pub fn functions(&self) -> &[String] {
        &self.functions
    }

    /// Names of the tables that the statement reads, sorted: in lower case unless they are quoted, and without
    /// those that it defines itself.
    pub fn tables(&self) -> Vec<String> {
        self.tables.clone()
    }

    pub(crate) fn into_parsed(self) -> parser::Statement {
        self.parsed
    }

    /// Checks that every table that the statement reads is there.
    pub(crate) fn check_tables(&self, tables: &[Table]) -> Result<(), Problem> {
        let is_there = |name: &&String| tables.iter().any(|table| table.name == **name);
        match self.tables.iter().find(|name| !is_there(name)) {
            Some(name) => Err(unknown_table(name, tables)),
            None => Ok(()),
        }
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidJob, detail)
}

fn too_large(detail: String) -> Problem {
    Problem::new(ErrorCode::TooLarge, detail)
}

fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, Problem> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
    let tokens = tokens.map_err(|error| unparsed(&ParserError::from(error)))?;
    let is_word = |token: &&TokenWithSpan| {
        !matches!(
            token.token,
            Token::Whitespace(_)
                | Token::Comma
                | Token::LParen
                | Token::RParen
                | Token::Number(_, _)
                | Token::SingleQuotedString(_)
        )
    };
    let n = tokens.iter().filter(is_word).count();
    if n > WORDS_MAX {
        return Err(too_large(format!(
            "the statement has {n} words and operators, of at most {WORDS_MAX}; lists of literals are not counted: \
             write long chains of conditions as IN lists"
        )));
    }
    Ok(tokens)
}

/// The query that a statement is, if it is one.
fn query(statement: &parser::Statement) -> Result<&ast::Query, Problem> {
    if let parser::Statement::Statement(statement) = statement
        && let ast::Statement::Query(query) = statement.as_ref()
    {
        return Ok(&**query);
    }
    let text = statement.to_string();
    let verb = text.split_whitespace().next().unwrap_or_default();
    let hint = match verb {
        "EXPLAIN" => {
            "; `weft sql --explain` and `weft run --explain` show a plan, `weft sql --analyze` and `weft job ID --plan` \
             how it ran"
        }
        _ => "",
    };
    Err(invalid(format!(
        "`{verb}` is not run; a statement is a query: SELECT, VALUES, or WITH and one of them{hint}"
    )))
}

fn bare(name: TableReference) -> Result<String, Problem> {
    match name {
        TableReference::Bare { table } => Ok(table.to_string()),
        TableReference::Partial { .. } | TableReference::Full { .. } => Err(invalid(format!(
            "`{name}` has a schema, and there are none; if the dot belongs to the name, quote it: \"{name}\""
        ))),
    }
}

fn unknown_table(name: &str, tables: &[Table]) -> Problem {
    let names = || tables.iter().map(|table| table.name.as_str());
    let other_case = names().find(|other| other.eq_ignore_ascii_case(name));
    let hint = match (other_case, nearest(name, names())) {
        (Some(other), _) => format!(
            "; did you mean \"{other}\"? names are read in lower case unless they are quoted"
        ),
        (None, Some(other)) => format!("; did you mean `{other}`?"),
        (None, None) => String::new(),
    };
    let known: Vec<String> = names().map(|name| format!("`{name}`")).collect();
    let known = match known.is_empty() {
        true => "no table".to_owned(),
        false => known.join(", "),
    };
    invalid(format!(
        "there is no table `{name}`{hint} (the statement may read {known})"
    ))
}

/// Sizes of a query, and the names in FROM that are read and called.
#[derive(Default)]
struct Shape {
    levels: usize,
    n_relations: usize,
    called: BTreeSet<TableReference>,
    read: BTreeSet<TableReference>,
}

impl Shape {
    fn count_relation(&mut self) -> ControlFlow<Box<Problem>> {
        self.n_relations += 1;
        match self.n_relations > RELATIONS_MAX {
            true => ControlFlow::Break(Box::new(too_large(format!(
                "the statement has more than {RELATIONS_MAX} tables and selects; split it into several stages"
            )))),
            false => ControlFlow::Continue(()),
        }
    }
}

impl Visitor for Shape {
    type Break = Box<Problem>;

    fn pre_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<Self::Break> {
        self.levels += 1;
        match self.levels > LEVELS_MAX {
            true => ControlFlow::Break(Box::new(too_deep())),
            false => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<Self::Break> {
        self.levels -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, _select: &Select) -> ControlFlow<Self::Break> {
        self.count_relation()
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { name, args, .. } = factor
            && let Ok(name) = object_name_to_table_reference(name.clone(), true)
        {
            match args {
                Some(_) => self.called.insert(name),
                None => self.read.insert(name),
            };
        }
        self.count_relation()
    }
}
