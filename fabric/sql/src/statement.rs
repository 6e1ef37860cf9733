//! Statements as they are written: parsed, bounded, and not yet planned.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::{self, DFParserBuilder};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    self, Cte, Expr, ObjectName, Select, SetExpr, SetOperator, TableFactor, Visit, Visitor, With,
    visit_relations,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use weft_core::job::nearest;
use weft_core::{ErrorCode, Problem};

use crate::calls::take_calls;
use crate::error::{planning, too_deep, unparsed};
use crate::expansion::Expansion;

/// Words and operators of a statement, without literals, commas and parentheses. Chains of operators become trees
/// as deep as they are long, and whoever walks a tree, or drops it, needs a stack as deep.
const WORDS_MAX: usize = 10_000;
/// Levels of an expression.
const LEVELS_MAX: usize = 1_000;
/// Tables and selects of a statement.
const RELATIONS_MAX: usize = 256;
/// Parts that planning adds to the expressions of a statement, because it repeats some. Each takes some 20 us and half
/// a KiB.
const ADDED_MAX: usize = 100_000;

/// One query, parsed.
#[derive(Debug, Clone)]
pub struct Statement {
    parsed: parser::Statement,
    tables: Vec<String>,
    functions: Vec<String>,
    /// How often a name is read, at most: CTEs of the same name are counted as well.
    n_reads: BTreeMap<String, usize>,
    size: Size,
    is_recursive: bool,
}

impl Statement {
    pub(crate) fn parse(sql: &str) -> Result<Self, Problem> {
        let (mut parsed, n_words) = parse_one(sql)?;
        let shape = Shape::of(query(&parsed)?)?;
        let (references, _) = resolve_table_references(&parsed, true).map_err(planning)?;
        let tables = references
            .into_iter()
            .filter(|name| !shape.called.contains(name) || shape.read.contains_key(name))
            .map(bare)
            .collect::<Result<Vec<_>, _>>()?;
        let size = Size {
            n_words,
            n_levels: shape.deepest,
            n_relations: shape.n_relations,
            n_added: shape.expansion.n_added(),
        };
        let is_recursive = shape.is_recursive;
        let n_reads = shape.read.into_iter();
        let n_reads = n_reads.map(|(name, n)| (name.table().to_owned(), n));
        let functions = take_calls(&mut parsed);
        Ok(Self {
            parsed,
            tables,
            functions,
            n_reads: n_reads.collect(),
            size,
            is_recursive,
        })
    }

    /// Functions of components that the statement calls, as references, sorted: `component/function`.
    pub fn functions(&self) -> &[String] {
        &self.functions
    }

    /// Size of the statement as it is written, views not counted.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Whether a query of the statement reads its own rows.
    pub(crate) fn is_recursive(&self) -> bool {
        self.is_recursive
    }

    /// How often the statement reads a table, at most.
    pub(crate) fn n_reads(&self, table: &str) -> usize {
        self.n_reads.get(table).copied().unwrap_or(1)
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
    pub(crate) fn check_tables(&self, known: &[&str]) -> Result<(), Problem> {
        let is_there = |name: &&String| known.contains(&name.as_str());
        match self.tables.iter().find(|name| !is_there(name)) {
            Some(name) => Err(unknown_table(name, known)),
            None => Ok(()),
        }
    }
}

/// Parses a text that holds one statement, of whatever kind. Returns its number of words, too.
pub(crate) fn parse_one(sql: &str) -> Result<(parser::Statement, usize), Problem> {
    let (tokens, n_words) = tokens(sql)?;
    let mut parser = DFParserBuilder::new(tokens).build().map_err(planning)?;
    let mut statements = parser.parse_statements().map_err(planning)?;
    let n = statements.len();
    let Some(parsed) = statements.pop_front().filter(|_| n == 1) else {
        return Err(invalid(match n {
            0 => "the text holds no statement; write a SELECT".to_owned(),
            _ => format!(
                "the text holds {n} statements; a stage runs one, so give each a stage, or put them into a file for \
                 `weft sql -f FILE`"
            ),
        }));
    };
    Ok((parsed, n_words))
}

/// Size of a statement, which is bounded. Views are counted as often as they are read: they are planned that often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    n_words: usize,
    n_levels: usize,
    n_relations: usize,
    n_added: usize,
}

impl Size {
    /// The size of a statement of this size that reads views of the sizes `views`, each so often.
    pub(crate) fn with_views(self, views: impl Iterator<Item = (Size, usize)>) -> Size {
        let plus = |own: usize, view: usize, n: usize| own.saturating_add(view.saturating_mul(n));
        let (mut whole, mut deepest) = (self, 0);
        for (view, n) in views {
            whole.n_words = plus(whole.n_words, view.n_words, n);
            whole.n_relations = plus(whole.n_relations, view.n_relations, n);
            whole.n_added = plus(whole.n_added, view.n_added, n);
            deepest = deepest.max(view.n_levels);
        }
        whole.n_levels = whole.n_levels.saturating_add(deepest);
        whole
    }

    /// Errors: `TooLarge` if a statement that reads views is larger than one without may be.
    pub(crate) fn check(self) -> Result<(), Problem> {
        for (n, most, what) in [
            (self.n_words, WORDS_MAX, "words and operators"),
            (self.n_levels, LEVELS_MAX, "levels of expressions"),
            (self.n_relations, RELATIONS_MAX, "tables and selects"),
            (self.n_added, ADDED_MAX, "parts that planning repeats"),
        ] {
            if n > most {
                return Err(too_large(format!(
                    "with its views the statement has {n} {what}, of at most {most}: keep the rows of a view in a \
                     table by COPY, and read that"
                )));
            }
        }
        Ok(())
    }
}

pub(crate) fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidJob, detail)
}

fn too_large(detail: String) -> Problem {
    Problem::new(ErrorCode::TooLarge, detail)
}

/// Splits a text into tokens, and counts those that are words.
pub(crate) fn tokens(sql: &str) -> Result<(Vec<TokenWithSpan>, usize), Problem> {
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
    Ok((tokens, n))
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
        "`{verb}` is not run; a statement is a query (SELECT, VALUES, or WITH and one of them), CREATE VIEW, CREATE \
         TABLE .. AS, CREATE EXTERNAL TABLE, INSERT, COPY, DROP, DESCRIBE, SHOW COLUMNS or SHOW TABLES{hint}"
    )))
}

pub(crate) fn bare(name: TableReference) -> Result<String, Problem> {
    match name {
        TableReference::Bare { table } => Ok(table.to_string()),
        TableReference::Partial { .. } | TableReference::Full { .. } => Err(invalid(format!(
            "`{name}` has a schema, and there are none; if the dot belongs to the name, quote it: \"{name}\""
        ))),
    }
}

fn unknown_table(name: &str, known: &[&str]) -> Problem {
    let names = || known.iter().copied();
    let other_case = names().find(|other| other.eq_ignore_ascii_case(name));
    let hint = match (other_case, nearest(name, names())) {
        (Some(other), _) => format!(
            "; did you mean \"{other}\"? names are read in lower case unless they are quoted"
        ),
        (None, Some(other)) => format!("; did you mean `{other}`?"),
        (None, None) => String::new(),
    };
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let known = match known.is_empty() {
        true => "no table".to_owned(),
        false => known.join(", "),
    };
    invalid(format!(
        "there is no table `{name}`{hint} (the statement may read {known})"
    ))
}

/// Whether a query that WITH defines reads itself.
fn is_recursive(with: &With) -> bool {
    let name_of = |name: ObjectName| object_name_to_table_reference(name, true).ok();
    let reads_itself = |cte: &Cte| {
        let own = name_of(ObjectName::from(vec![cte.alias.name.clone()]));
        let read = visit_relations(cte.query.as_ref(), |name| {
            match name_of(name.clone()) == own {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        read.is_break()
    };
    with.recursive && with.cte_tables.iter().any(reads_itself)
}

/// Refuses clauses around the UNION of a query that WITH RECURSIVE defines, even if it does not read itself: DataFusion
/// plans the branches of such a UNION alone.
fn check_recursive(with: &With) -> Result<(), Problem> {
    let is_more = |query: &ast::Query| {
        query.with.is_some()
            || query.order_by.is_some()
            || query.limit_clause.is_some()
            || query.fetch.is_some()
            || !query.pipe_operators.is_empty()
    };
    let is_union = |query: &ast::Query| {
        matches!(
            query.body.as_ref(),
            SetExpr::SetOperation {
                op: SetOperator::Union,
                ..
            }
        )
    };
    let mut ctes = with.cte_tables.iter();
    match ctes.find(|cte| is_union(&cte.query) && is_more(&cte.query)) {
        Some(cte) if with.recursive => Err(invalid(format!(
            "the UNION of `{}` in WITH RECURSIVE has a WITH, ORDER BY, LIMIT, OFFSET, FETCH or `|>` around it: put it \
             in the outer query",
            cte.alias.name.value
        ))),
        _ => Ok(()),
    }
}

/// Sizes of a query, and the names in FROM that are read, and how often, and those that are called.
#[derive(Default)]
pub(crate) struct Shape {
    levels: usize,
    deepest: usize,
    n_relations: usize,
    called: BTreeSet<TableReference>,
    read: BTreeMap<TableReference, usize>,
    /// Holds a WITH RECURSIVE that is recursive.
    is_recursive: bool,
    expansion: Expansion,
}

impl Shape {
    /// Looks at a query. Errors: `TooLarge` if it is beyond a bound.
    pub(crate) fn of(query: &ast::Query) -> Result<Self, Problem> {
        let mut shape = Shape::default();
        match query.visit(&mut shape) {
            ControlFlow::Break(problem) => Err(*problem),
            ControlFlow::Continue(()) if shape.expansion.n_added() > ADDED_MAX => {
                Err(too_large(format!(
                    "planning repeats more than {ADDED_MAX} parts of its expressions: COALESCE, NVL, IFNULL, BETWEEN \
                     and the conditions of CASE repeat what they test, and nested ones do so at each level; give one \
                     COALESCE all values, or compute the inner ones in an earlier stage"
                )))
            }
            ControlFlow::Continue(()) => Ok(shape),
        }
    }

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

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Self::Break> {
        let Some(with) = &query.with else {
            return ControlFlow::Continue(());
        };
        self.is_recursive |= is_recursive(with);
        match check_recursive(with) {
            Ok(()) => ControlFlow::Continue(()),
            Err(problem) => ControlFlow::Break(Box::new(problem)),
        }
    }

    fn pre_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<Self::Break> {
        self.levels += 1;
        self.deepest = self.deepest.max(self.levels);
        self.expansion.enter();
        match self.levels > LEVELS_MAX {
            true => ControlFlow::Break(Box::new(too_deep())),
            false => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Self::Break> {
        self.levels -= 1;
        self.expansion.leave(expression);
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
                Some(_) => {
                    self.called.insert(name);
                }
                None => *self.read.entry(name).or_default() += 1,
            }
        }
        self.count_relation()
    }
}
