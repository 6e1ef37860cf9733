//! Plans as people see them: operators, and the stages that leaves read.

use weft_sql::{Options, PlanLine, Session};

use crate::data::SMALL;
use crate::runner::{options, plan};

/// The plans of all stages: leaves as they are, other operators by their names. Projections are left out: they come and
/// go with versions of DataFusion.
fn shape(sql: &str, options: &Options) -> String {
    let (_, stages) = plan(&Session::new(), &SMALL, sql, options).expect(sql);
    let mut text = String::new();
    for (position, stage) in stages.iter().enumerate() {
        let by = match stage.keys.is_empty() {
            true => String::new(),
            false => format!(", by {}", stage.keys.join(", ")),
        };
        text += &format!("query.{}{by}\n", position + 1);
        for line in stage.operators.iter().filter_map(operator) {
            text += &format!("  {line}\n");
        }
    }
    text
}

fn operator(line: &PlanLine) -> Option<String> {
    let shown = line.show(|stage| format!("query.{}", stage + 1));
    let shown = shown.trim_start();
    if shown.starts_with("Scan") || shown.starts_with("Read") {
        return Some(shown.to_owned());
    }
    let name = shown.split([':', ' ']).next().unwrap_or_default();
    (name != "ProjectionExec").then(|| name.to_owned())
}

const JOIN: &str = "SELECT t.id, u.v FROM u JOIN t ON t.k = u.k";

#[test]
fn the_small_side_of_a_join_goes_to_all_tasks() {
    let expected = "\
query.1
  Scan: table=u, columns=[k, v]
query.2
  HashJoinExec
  Read: query.1, all rows
  Scan: table=t, columns=[id, k]
";
    assert_eq!(shape(JOIN, &options(3, true)), expected);
}

#[test]
fn both_sides_of_a_join_go_by_its_key() {
    let expected = "\
query.1, by k
  Scan: table=u, columns=[k, v]
query.2, by k
  Scan: table=t, columns=[id, k]
query.3
  HashJoinExec
  Read: query.1, by key
  Read: query.2, by key
";
    assert_eq!(shape(JOIN, &options(3, false)), expected);
}

#[test]
fn a_union_is_one_stage() {
    let sql = "SELECT id FROM t UNION ALL SELECT id FROM u";
    let expected = "\
query.1
  UnionExec
  Scan: table=t, columns=[id]
  Scan: table=u, columns=[id]
";
    assert_eq!(shape(sql, &options(3, true)), expected);
}

#[test]
fn groups_go_by_their_key_and_sorted_rows_are_merged() {
    let sql = "SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY n";
    let expected = "\
query.1, by k
  AggregateExec
  Scan: table=t, columns=[k]
query.2
  SortExec
  AggregateExec
  Read: query.1, by key
query.3
  SortPreservingMergeExec
  Read: query.2, a stream of each task
";
    assert_eq!(shape(sql, &options(3, true)), expected);
}

#[test]
fn expressions_are_readable() {
    let sql = "SELECT id FROM t WHERE v > 3 AND s = 'a\nb'";
    let (_, stages) = plan(&Session::new(), &SMALL, sql, &options(1, true)).expect(sql);
    let lines = stages[0].operators.iter();
    let lines: Vec<String> = lines.map(|line| line.show(|_| String::new())).collect();
    let filter = lines.iter().find(|line| line.contains("FilterExec"));
    let filter = filter.unwrap_or_else(|| panic!("no filter in {lines:#?}"));
    assert!(
        filter.contains("> 3") && filter.contains("= a b"),
        "{filter}"
    );
    let leaf = lines.last().expect("a plan has a leaf");
    assert!(
        leaf.starts_with("  ") && leaf.trim_start().starts_with("Scan: table=t"),
        "{leaf}"
    );
}
