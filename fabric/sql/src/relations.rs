//! Names that a statement reads, and the tables and views behind them.

use std::collections::BTreeMap;

use weft_core::Problem;

use crate::statement::{Size, Statement};
use crate::table::Table;

/// Rows behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The table at this position.
    Table(usize),
    /// The view at this position.
    View(usize),
}

/// Names of one statement or view. Each has its own: what a view reads does not depend on who reads the view.
pub type Reads = BTreeMap<String, Relation>;

/// A query that is read like a table.
#[derive(Debug, Clone)]
pub struct View {
    /// Name of the view, for people.
    pub name: String,
    /// The query.
    pub statement: Statement,
    /// Names that the query reads; views among them stand before this one.
    pub reads: Reads,
}

/// All that a statement reads, directly or by way of views.
#[derive(Debug, Clone, Default)]
pub struct Relations {
    /// Tables; leaves of plans name them by position.
    pub tables: Vec<Table>,
    /// Views, each after those that it reads.
    pub views: Vec<View>,
    /// Names that the statement itself reads.
    pub reads: Reads,
}

impl From<Vec<Table>> for Relations {
    /// Tables that are read by their names.
    fn from(tables: Vec<Table>) -> Self {
        let reads = tables.iter().enumerate();
        let reads = reads.map(|(position, table)| (table.name.clone(), Relation::Table(position)));
        Self {
            reads: reads.collect(),
            views: Vec::new(),
            tables,
        }
    }
}

impl Relations {
    /// Whether a statement, or a view that it reads, has a recursion.
    pub(crate) fn recurse(&self, statement: &Statement) -> bool {
        let mut views = self.views.iter();
        statement.is_recursive() || views.any(|view| view.statement.is_recursive())
    }

    /// Checks that all names are known, and that the statement is within its bounds with its views.
    pub(crate) fn check(&self, statement: &Statement) -> Result<(), Problem> {
        let mut sizes = Vec::new();
        for view in &self.views {
            let known = check_names(&view.statement, &view.reads);
            known.map_err(|mut problem| {
                problem.detail = format!("view `{}`: {}", view.name, problem.detail);
                problem
            })?;
            sizes.push(expanded(&view.statement, &view.reads, &sizes));
        }
        check_names(statement, &self.reads)?;
        expanded(statement, &self.reads, &sizes).check()
    }
}

fn check_names(statement: &Statement, reads: &Reads) -> Result<(), Problem> {
    let known: Vec<&str> = reads.keys().map(String::as_str).collect();
    statement.check_tables(&known)
}

/// The size of a statement with its views, whose sizes stand in `views`.
fn expanded(statement: &Statement, reads: &Reads, views: &[Size]) -> Size {
    let views = reads.iter().filter_map(|(name, relation)| match relation {
        Relation::View(position) => Some((*views.get(*position)?, statement.n_reads(name))),
        Relation::Table(_) => None,
    });
    statement.size().with_views(views)
}
