//! `weft nodes`: the nodes of a server or cluster.

use serde::Deserialize;
use weft_client::{Call, Client, path};

use crate::failure::Failure;
use crate::terminal::text::count;
use crate::terminal::{Output, Side, Table};

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
