//! `weft why`: what a job waits for, and what waits at all.

use serde::Deserialize;
use weft_client::{Call, Client, path};

use super::jobs::id_of;
use crate::failure::Failure;
use crate::terminal::text::count;
use crate::terminal::{Output, Side, Table};

/// The explanation of the leader.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Why {
    status: Option<String>,
    reasons: Vec<String>,
    nodes: Vec<WhyNode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WhyNode {
    id: String,
    slots: u64,
    tasks: u64,
    reason: String,
}

/// Runs `weft why`, of a job or of all that waits.
pub(crate) async fn why(
    client: &Client,
    id: Option<&str>,
    output: &mut Output,
) -> Result<(), Failure> {
    let call = match id {
        Some(id) => of_job(client, id).await?,
        None => Call::get(path(&["queue"])),
    };
    let answer = client.send(&call).await?;
    let why: Why = answer.read()?;
    output.either(answer.text()?, || render(&why))
}

/// The call for `JOB`, `JOB/STAGE` or `JOB/STAGE/TASK`.
async fn of_job(client: &Client, text: &str) -> Result<Call, Failure> {
    let mut parts = text.splitn(3, '/');
    let id = id_of(client, parts.next().unwrap_or_default()).await?;
    let of = ["stage", "task"].into_iter().zip(parts);
    let of: Vec<(&str, String)> = of.map(|(name, value)| (name, value.to_owned())).collect();
    Ok(Call::get(path(&["jobs", &id, "why"])).query(&of))
}

fn render(why: &Why) -> String {
    let mut lines: Vec<String> = why.status.iter().cloned().collect();
    lines.extend(why.reasons.iter().map(|reason| format!("  {reason}")));
    if !why.nodes.is_empty() {
        let mut table = Table::new(&[
            ("node", Side::Left),
            ("slots", Side::Right),
            ("tasks", Side::Right),
            ("why", Side::Left),
        ]);
        for node in &why.nodes {
            table.row([
                node.id.clone(),
                count(node.slots),
                count(node.tasks),
                node.reason.clone(),
            ]);
        }
        lines.push(table.render());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_for_people() {
        let why = Why {
            status: Some("running".into()),
            reasons: vec![
                "stage `noop`: 1 of 4 tasks are done, 3 were sent to nodes, 0 wait".into(),
            ],
            nodes: vec![WhyNode {
                id: "node-1".into(),
                slots: 1,
                tasks: 3,
                reason: "it has 3 tasks: as many as it has slots, and 2 more".into(),
            }],
        };
        let expected = "\
running
  stage `noop`: 1 of 4 tasks are done, 3 were sent to nodes, 0 wait
node    slots  tasks  why
node-1      1      3  it has 3 tasks: as many as it has slots, and 2 more";
        assert_eq!(render(&why), expected);
    }
}
