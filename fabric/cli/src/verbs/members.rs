//! `weft members`: the controllers of a group, and how they come and go.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use weft_client::{Call, Client, path};

use crate::arguments::MembersCommand;
use crate::failure::Failure;
use crate::terminal::{Output, Side, Table};

/// Pause between two looks at a controller that catches up.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Time for which a controller is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cluster {
    members: Vec<u64>,
    learners: Vec<u64>,
    leader: Option<u64>,
}

/// Runs `weft members`.
pub(crate) async fn members(
    client: &Client,
    command: Option<&MembersCommand>,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        None => {
            let answer = client.send(&Call::get(path(&["cluster"]))).await?;
            let cluster: Cluster = answer.read()?;
            output.either(answer.text()?, || render(&cluster))
        }
        Some(MembersCommand::Add { member }) => add(client, *member, output).await,
        Some(MembersCommand::Remove { member }) => {
            let of = path(&["cluster", "members", &member.to_string()]);
            client.send(&Call::delete(of)).await?;
            let done = json!({ "member": member, "status": "removed" });
            output.either(&done.to_string(), || {
                format!("controller {member} is no member any more: its process can be stopped")
            })
        }
    }
}

/// Adds a controller, and returns when it votes.
async fn add(client: &Client, member: u64, output: &mut Output) -> Result<(), Failure> {
    let of = path(&["cluster", "members", &member.to_string()]);
    client.send(&Call::put(of)).await?;
    output.note(&format!(
        "controller {member} gets the log, and votes once it has caught up"
    ));
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = client.send(&Call::get(path(&["cluster"]))).await?;
        let cluster: Cluster = answer.read()?;
        if cluster.members.contains(&member) {
            let done = json!({ "member": member, "status": "votes" });
            return output.either(&done.to_string(), || format!("controller {member} votes"));
        }
        if Instant::now() >= until {
            return Err(Failure::other(format!(
                "controller {member} has not caught up within {PATIENCE:?}: is it running, with `join = true` and an empty data folder? `weft members` shows it"
            )));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn render(cluster: &Cluster) -> String {
    let mut table = Table::new(&[("controller", Side::Left), ("status", Side::Left)]);
    let voters = cluster.members.iter().map(|member| (member, true));
    let learners = cluster.learners.iter().map(|member| (member, false));
    for (member, votes) in voters.chain(learners) {
        let status = match (votes, cluster.leader == Some(*member)) {
            (true, true) => "votes, leads",
            (true, false) => "votes",
            (false, _) => "catches up",
        };
        table.row([member.to_string(), status.to_owned()]);
    }
    table.render()
}
