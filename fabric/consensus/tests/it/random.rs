//! Members that are cut off and restarted at random, on a network that loses messages: what was acknowledged stays.
//!
//! The seed decides what happens to the members; threads decide when. `WEFT_SEED` repeats a seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_consensus::{Handle, MemoryTransport, Message, Transport};

use crate::support::{Group, command, commands};

const N_COMMANDS: usize = 150;
const N_EVENTS: usize = 12;

/// SplitMix64.
#[derive(Clone)]
struct Random(Arc<Mutex<u64>>);

impl Random {
    fn new(seed: u64) -> Random {
        Random(Arc::new(Mutex::new(seed)))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Loses one message in twenty and doubles another one.
#[derive(Clone)]
struct FaultyTransport {
    network: MemoryTransport,
    random: Random,
}

impl Transport for FaultyTransport {
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            match self.random.below(20) {
                0 => {}
                1 => self.network.send(vec![message.clone(), message]),
                _ => self.network.send(vec![message]),
            }
        }
    }
}

fn seed() -> u64 {
    match std::env::var("WEFT_SEED") {
        Ok(seed) => seed.parse().expect("WEFT_SEED is a number"),
        Err(_) => u64::from(std::process::id()) << 32 | u64::from(std::process::id()),
    }
}

/// Asks all members in turn until one says yes, as a client outside would.
async fn propose(handles: &Mutex<Vec<Handle>>, number: usize) {
    for turn in 0.. {
        let handle = {
            let handles = handles.lock().unwrap();
            handles[turn % handles.len()].clone()
        };
        if handle.propose(command(number)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn disturb(
    group: &mut Group<FaultyTransport>,
    handles: &Mutex<Vec<Handle>>,
    random: &Random,
) {
    let victim = 1 + random.below(3);
    let pause = Duration::from_millis(random.below(400));
    if random.below(2) == 0 {
        group.network.cut_off(victim);
        tokio::time::sleep(pause).await;
        group.network.reconnect(victim);
    } else {
        group.stop_member(victim).await;
        tokio::time::sleep(pause).await;
        group.start_member(victim);
        handles.lock().unwrap()[victim as usize - 1] = group.member(victim).handle().clone();
    }
    tokio::time::sleep(pause).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_happens() {
    let seed = seed();
    println!("WEFT_SEED={seed}");
    let random = Random::new(seed);
    let network = MemoryTransport::new();
    let transport = FaultyTransport {
        network: network.clone(),
        random: random.clone(),
    };
    let mut group = Group::start_on(3, network, transport);
    let handles = group.members.iter().map(|m| m.handle().clone()).collect();
    let handles = Arc::new(Mutex::new(handles));
    let client = tokio::spawn({
        let handles = handles.clone();
        async move {
            for number in 0..N_COMMANDS {
                propose(&handles, number).await;
            }
        }
    });
    for _ in 0..N_EVENTS {
        disturb(&mut group, &handles, &random).await;
    }
    tokio::time::timeout(crate::support::DEADLINE, client)
        .await
        .expect("the client never got through")
        .unwrap();
    let mut agreed = group.agreed().await;
    agreed.dedup();
    assert_eq!(agreed, commands(0..N_COMMANDS), "seed {seed}");
    group.stop().await;
}
