//! `weft nodes` and `weft drain`: the nodes of a server or cluster.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use weft_client::{Call, Client, path};

use crate::failure::Failure;
use crate::terminal::text::count;
use crate::terminal::{Output, Side, Table};

/// Pause between two looks at a node that drains.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Nodes {
    items: Vec<Node>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    id: String,
    status: String,
    slots: u64,
    invocations_under_way: u64,
}

/// Runs `weft nodes`.
pub(crate) async fn nodes(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let answer = client.send(&Call::get(path(&["nodes"]))).await?;
    let nodes: Nodes = answer.read()?;
    output.either(answer.text()?, || render(&nodes))
}

/// Runs `weft drain`, and returns when the node has ended.
pub(crate) async fn drain(client: &Client, node: &str, output: &mut Output) -> Result<(), Failure> {
    client
        .send(&Call::post(path(&["nodes", node, "drain"])))
        .await?;
    output.note(&format!(
        "{node} takes no new work, and ends once what it has is done"
    ));
    loop {
        let answer = client.send(&Call::get(path(&["nodes"]))).await?;
        let nodes: Nodes = answer.read()?;
        let found = nodes.items.iter().find(|one| one.id == node);
        if found.is_none_or(|one| one.status == "unreachable") {
            let done = json!({ "id": node, "status": "drained" });
            return output.either(&done.to_string(), || format!("{node} is drained"));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn render(nodes: &Nodes) -> String {
    let mut table = Table::new(&[
        ("node", Side::Left),
        ("status", Side::Left),
        ("slots", Side::Right),
        ("invocations", Side::Right),
    ]);
    for node in &nodes.items {
        table.row([
            node.id.clone(),
            node.status.clone(),
            count(node.slots),
            count(node.invocations_under_way),
        ]);
    }
    table.render()
}
