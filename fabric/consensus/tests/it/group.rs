//! Three members: elections, catching up, members that are cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raft::eraftpb::MessageType;
use weft_consensus::{Error, ErrorKind, MemoryTransport, Message, Transport};

use crate::support::{DEADLINE, Group, command, commands, until, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_goes_on_without_its_leader() {
    let mut group = Group::start(3);
    let all = [1, 2, 3];
    for number in 0..200 {
        group.propose(&all, &command(number)).await;
    }
    let old_leader = group.leader(&all).await;
    let old_term = group.member(old_leader).handle().status().term;
    group.stop_member(old_leader).await;
    for number in 200..230 {
        group.propose(&all, &command(number)).await;
    }
    let new_leader = group.leader(&all).await;
    let new_term = group.member(new_leader).handle().status().term;
    assert!(new_leader != old_leader && new_term > old_term);
    group.start_member(old_leader);
    let agreed = group.agreed().await;
    let acknowledged = commands(0..230);
    // A command whose outcome was unknown was proposed again, and may be there twice.
    assert!(acknowledged.iter().all(|command| agreed.contains(command)));
    assert!(
        agreed.len() <= acknowledged.len() + 1,
        "{} commands",
        agreed.len()
    );
    group.stop().await;
}

async fn wrote_snapshot<T: Transport + Clone>(group: &Group<T>, member: u64, index: u64) {
    let handle = group.member(member).handle();
    wait(handle, |status| status.snapshot_index >= index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_behind_the_log_gets_a_snapshot() {
    let mut group = Group::start(3);
    let all = [1, 2, 3];
    group.propose(&all, &command(0)).await;
    group.agreed().await;
    let leader = group.leader(&all).await;
    let lagging = all.into_iter().find(|id| *id != leader).unwrap();
    let others: Vec<u64> = all.into_iter().filter(|id| *id != lagging).collect();
    group.network.cut_off(lagging);
    for number in 1..180 {
        group.propose(&others, &command(number)).await;
    }
    assert!(group.member(lagging).journal().record().n_applied <= 1);
    wrote_snapshot(&group, leader, 150).await;
    group.network.reconnect(lagging);
    let agreed = group.agreed().await;
    assert!(
        commands(0..180)
            .iter()
            .all(|command| agreed.contains(command))
    );
    let record = group.member(lagging).journal().record().n_restored;
    assert!(record >= 1, "no snapshot was installed");
    wrote_snapshot(&group, lagging, 150).await;

    // What it installed is what it starts from.
    group.stop_member(lagging).await;
    group.start_member(lagging);
    assert_eq!(group.agreed().await, agreed);
    assert!(group.member(lagging).journal().record().n_applied < 40);
    group.propose(&all, &command(180)).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_was_acknowledged_anywhere() {
    let group = Group::start(3);
    let all = [1, 2, 3];
    for number in 0..30 {
        group.propose(&all, &command(number)).await;
        for member in &group.members {
            let index = member.handle().read_index().await.unwrap();
            member.handle().applied(index).await.unwrap();
            let seen = member.journal().commands();
            assert!(seen.contains(&command(number)), "member {}", member.id);
        }
    }
    let leader = group.leader(&all).await;
    let follower = all.into_iter().find(|id| *id != leader).unwrap();
    group.network.cut_off(follower);
    // Nobody confirms that what it has is all.
    let refused = group.member(follower).handle().read_index().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotLeader);
    group.network.reconnect(follower);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader() {
    let group = Group::start(3);
    let leader = group.leader(&[1, 2, 3]).await;
    for follower in group.members.iter().filter(|member| member.id != leader) {
        wait(follower.handle(), |status| status.leader_id == Some(leader)).await;
        let error = follower.handle().propose(command(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotLeader);
        assert!(matches!(error, Error::NotLeader { leader: Some(id) } if id == leader));
        assert!(
            error.to_string().contains(&format!("member {leader}")),
            "{error}"
        );
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_gives_up_and_says_so() {
    let group = Group::start(3);
    let all = [1, 2, 3];
    group.propose(&all, &command(0)).await;
    let leader = group.leader(&all).await;
    let others: Vec<u64> = all.into_iter().filter(|id| *id != leader).collect();
    let term = group.member(leader).handle().status().term;
    group.network.cut_off(leader);
    let lost = group.member(leader).handle().propose(b"lost".to_vec());
    let lost = tokio::time::timeout(DEADLINE, lost)
        .await
        .expect("no answer");
    assert!(matches!(lost, Err(Error::LeadershipLost)), "{lost:?}");
    assert_eq!(
        group.member(leader).journal().record().leadership,
        [true, false]
    );
    group.propose(&others, &command(1)).await;
    until("the old leader looks for votes", || {
        group.member(leader).handle().status().leader_id.is_none()
    })
    .await;
    // Twice the longest election timeout. PreVote: waiting alone does not raise the term of a member that is cut off, so
    // that it deposes nobody when it comes back.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(group.member(leader).handle().status().term, term);
    let new_leader = group.leader(&others).await;
    let new_term = group.member(new_leader).handle().status().term;
    group.network.reconnect(leader);
    let agreed = group.agreed().await;
    assert_eq!(agreed, commands(0..2), "the lost command was replaced");
    assert_eq!(group.member(new_leader).handle().status().term, new_term);
    group.stop().await;
}

/// Loses the first snapshot on its way.
#[derive(Clone)]
struct SnapshotLoser {
    network: MemoryTransport,
    n_snapshots: Arc<AtomicUsize>,
}

impl Transport for SnapshotLoser {
    fn send(&self, mut messages: Vec<Message>) {
        messages.retain(|message| {
            message.get_msg_type() != MessageType::MsgSnapshot
                || self.n_snapshots.fetch_add(1, Ordering::SeqCst) > 0
        });
        self.network.send(messages);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_lost_is_sent_again() {
    let network = MemoryTransport::new();
    let transport = SnapshotLoser {
        network: network.clone(),
        n_snapshots: Arc::default(),
    };
    let group = Group::start_on(3, network, transport.clone());
    let all = [1, 2, 3];
    let leader = group.leader(&all).await;
    let lagging = all.into_iter().find(|id| *id != leader).unwrap();
    let others: Vec<u64> = all.into_iter().filter(|id| *id != lagging).collect();
    group.network.cut_off(lagging);
    for number in 0..120 {
        group.propose(&others, &command(number)).await;
    }
    wrote_snapshot(&group, leader, 50).await;
    group.network.reconnect(lagging);
    let agreed = group.agreed().await;
    assert!(
        commands(0..120)
            .iter()
            .all(|command| agreed.contains(command))
    );
    assert!(transport.n_snapshots.load(Ordering::SeqCst) >= 2);
    group.stop().await;
}
