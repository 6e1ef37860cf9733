use std::sync::Mutex;
use std::time::Duration;

use weft_core::{ErrorCode, lock};

use super::super::outbox::Room;
use super::super::reads::fake::MapReads;
use super::*;

/// Answers with the chain that it was called with.
#[derive(Default)]
struct FakeOthers(Mutex<Vec<ActorRef>>);

#[async_trait]
impl Others for FakeOthers {
    async fn invoke(
        &self,
        to: ActorRef,
        _: String,
        _: Vec<u8>,
        chain: Vec<ActorRef>,
        _: Instant,
    ) -> Result<Vec<u8>, Problem> {
        lock(&self.0).push(to);
        let names: Vec<String> = chain.iter().map(|actor| actor.key.clone()).collect();
        match names.len() {
            1 => Ok(names.join(" ").into_bytes()),
            _ => Err(Problem::new(ErrorCode::GuestError, "no such method")),
        }
    }
}

fn actor(key: &str) -> ActorRef {
    ActorRef::new("bank", "account", key).expect("a valid key")
}

fn turn_over(committed: &[(&str, &str)]) -> ActorTurn {
    let me = actor("me");
    let mut map = MapReads::default();
    for (key, value) in committed {
        let value = value.as_bytes().to_vec();
        map.0.insert(keys::state(&me, key.as_bytes()), value);
    }
    // A neighbour, which no turn of ours sees.
    map.0.insert(keys::state(&actor("mf"), b"a"), vec![1]);
    ActorTurn {
        actor: me,
        reads: Arc::new(map),
        others: Arc::new(FakeOthers::default()),
        chain: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(60),
        is_unsettled: false,
        effects: Effects::none(Room::default().reserve()),
    }
}

async fn scan(turn: &mut ActorTurn, start: &str, end: Option<&str>, limit: u32) -> String {
    let end = end.map(|end| end.as_bytes().to_vec());
    let found = turn.scan(start.as_bytes().to_vec(), end, limit).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    let found = found.expect("it is within bounds").into_iter();
    let entries = found.map(|(key, value)| format!("{}={}", text(key), text(value)));
    entries.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn stopped<T: std::fmt::Debug>(asked: Asked<T>, limit: LimitKind) {
    match asked {
        Err(Refusal::Stopped(Fault::Limit { kind, .. })) => assert_eq!(kind, limit),
        other => panic!("it is not stopped: {other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(asked: Asked<T>, part: &str) {
    match asked {
        Err(Refusal::Told(text)) => assert!(text.contains(part), "`{text}` lacks `{part}`"),
        other => panic!("it is not told: {other:?}"),
    }
}

#[tokio::test]
async fn a_turn_reads_its_own_writes() {
    let mut turn = turn_over(&[("a", "1"), ("b", "2")]);
    turn.put(b"a".to_vec(), b"9".to_vec()).expect("it fits");
    turn.delete(b"b".to_vec()).expect("it fits");
    let get = |found: Asked<Option<Bytes>>| found.expect("it reads").map(|value| value.to_vec());
    assert_eq!(get(turn.get(b"a").await), Some(b"9".to_vec()));
    assert_eq!(get(turn.get(b"b").await), None);
    assert_eq!(get(turn.get(b"c").await), None);
}

#[tokio::test]
async fn scans_merge_writes_with_what_is_committed() {
    let mut turn = turn_over(&[("b", "1"), ("c", "2"), ("d", "3"), ("f", "4")]);
    for (key, value) in [("a", "w"), ("c", "x"), ("e", "y"), ("g", "z")] {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        turn.put(key, value).expect("it fits");
    }
    turn.delete(b"d".to_vec()).expect("it fits");
    assert_eq!(
        scan(&mut turn, "", None, 100).await,
        "a=w b=1 c=x e=y f=4 g=z"
    );
    assert_eq!(scan(&mut turn, "b", Some("f"), 100).await, "b=1 c=x e=y");
    assert_eq!(scan(&mut turn, "", None, 3).await, "a=w b=1 c=x");
    assert_eq!(scan(&mut turn, "c", Some("c"), 3).await, "");
    assert_eq!(scan(&mut turn, "f", Some("b"), 3).await, "");
    assert_eq!(scan(&mut turn, "", None, 0).await, "");
}

/// Against a map that has both from the start, with numbers that look random and are the same each time.
#[tokio::test]
async fn scans_are_those_of_one_sorted_map() {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..200 {
        let mut model = BTreeMap::new();
        let committed: Vec<(String, String)> = (0..next(60))
            .map(|_| (format!("{:02}", next(80)), format!("c{}", next(9))))
            .collect();
        model.extend(committed.iter().cloned());
        let pairs = committed
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut turn = turn_over(&pairs.collect::<Vec<_>>());
        for _ in 0..next(60) {
            let (key, value) = (format!("{:02}", next(80)), format!("w{}", next(9)));
            if next(3) == 0 {
                model.remove(&key);
                turn.delete(key.into_bytes()).expect("it fits");
            } else {
                model.insert(key.clone(), value.clone());
                turn.put(key.into_bytes(), value.into_bytes())
                    .expect("it fits");
            }
        }
        let (start, end, limit) = (next(80), next(80), next(40));
        let (start, end) = (format!("{start:02}"), format!("{end:02}"));
        let within = model
            .iter()
            .filter(|(key, _)| **key >= start && **key < end);
        let within = within.take(usize::try_from(limit).expect("it is small"));
        let expected: Vec<String> = within
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let limit = u32::try_from(limit).expect("it is small");
        let found = scan(&mut turn, &start, Some(&end), limit).await;
        assert_eq!(found, expected.join(" "), "round {round}");
    }
}

#[tokio::test]
async fn what_a_turn_writes_is_bounded() {
    let mut turn = turn_over(&[]);
    stopped(
        turn.put(vec![0; MAX_KEY_BYTES + 1], Vec::new()),
        LimitKind::State,
    );
    stopped(
        turn.put(vec![1], vec![0; MAX_VALUE_BYTES + 1]),
        LimitKind::State,
    );
    let mut turn = turn_over(&[]);
    for _ in 0..10 {
        // Written over and over, it counts once.
        turn.put(vec![1], vec![0; MAX_VALUE_BYTES])
            .expect("it fits");
    }
    for key in 2..4 {
        turn.put(vec![key], vec![0; MAX_VALUE_BYTES])
            .expect("it fits");
    }
    stopped(
        turn.put(vec![4], vec![0; MAX_VALUE_BYTES]),
        LimitKind::State,
    );
    let mut turn = turn_over(&[]);
    for key in 0..MAX_WRITES {
        turn.delete(key.to_be_bytes().to_vec()).expect("it fits");
    }
    stopped(turn.delete(b"one more".to_vec()), LimitKind::State);
}

/// A guest may hand over keys as long as its memory.
#[tokio::test]
async fn keys_that_are_read_are_bounded() {
    let mut turn = turn_over(&[]);
    let behind = vec![0; MAX_KEY_BYTES + 1];
    turn.get(&behind).await.expect("nothing is there");
    let all = turn.scan(behind.clone(), Some(vec![1]), 10).await;
    all.expect("it begins behind any key");
    let long = [&behind[..], b"x"].concat();
    stopped(turn.get(&long).await, LimitKind::State);
    let begins = turn.scan(long.clone(), None, 10).await;
    stopped(begins, LimitKind::State);
    stopped(turn.scan(behind, Some(long), 10).await, LimitKind::State);
}

#[tokio::test]
async fn scans_are_bounded() {
    let mut turn = turn_over(&[]);
    let limit = u32::try_from(MAX_SCAN_ENTRIES).expect("it is small") + 1;
    refused(turn.scan(Vec::new(), None, limit).await, "1000 entries");
    let large = "x".repeat(MAX_VALUE_BYTES);
    let entries = ["a", "b", "c", "d", "e"].map(|key| (key, large.as_str()));
    let mut turn = turn_over(&entries);
    refused(turn.scan(Vec::new(), None, 5).await, "4 MiB");
    assert_eq!(
        turn.scan(Vec::new(), None, 3).await.expect("it fits").len(),
        3
    );
}

#[tokio::test]
async fn messages_are_bounded_by_turn_and_by_shard() {
    let mut turn = turn_over(&[]);
    let mut tell = |key: &str, input: Vec<u8>| turn.tell("account", key.into(), "m".into(), input);
    for _ in 0..MAX_MESSAGES {
        tell("b", Vec::new()).expect("it fits");
    }
    stopped(tell("b", Vec::new()), LimitKind::Outbox);
    let room = Room::default();
    room.fill(MAX_OUTBOX - 1);
    let mut turn = turn_over(&[]);
    turn.effects = Effects::none(room.reserve());
    turn.tell("account", "b".into(), "m".into(), Vec::new())
        .expect("it fits");
    let full = turn.tell("account", "b".into(), "m".into(), Vec::new());
    stopped(full, LimitKind::Outbox);
    drop(turn);
    assert_eq!(
        room.taken(),
        MAX_OUTBOX - 1,
        "a turn that fails gives its room back"
    );
}

#[tokio::test]
async fn others_are_named_within_the_component_or_by_both_names() {
    let mut turn = turn_over(&[]);
    for (name, component, of) in [("teller", "bank", "teller"), ("shop/cart", "shop", "cart")] {
        turn.tell(name, "k".into(), "m".into(), vec![1])
            .expect("it is a name");
        let told = turn.effects.messages.pop().expect("it was told");
        assert_eq!(told.to, ActorRef::new(component, of, "k").expect("valid"));
        assert_eq!(told.from, actor("me"));
    }
    for name in ["", "a/b/c", "Big", "shop/"] {
        let told = turn.tell(name, "k".into(), "m".into(), Vec::new());
        refused(told, "names no actor");
    }
    let told = turn.tell("account", String::new(), "m".into(), Vec::new());
    refused(told, "not a key");
    let long = "m".repeat(MAX_METHOD_BYTES + 1);
    for method in ["", "a\nb", long.as_str()] {
        let told = turn.tell("account", "k".into(), method.into(), Vec::new());
        refused(told, "the name of a method");
    }
    let large = vec![0; MAX_TURN_BYTES + 1];
    refused(turn.tell("account", "k".into(), "m".into(), large), "input");
}

#[tokio::test]
async fn nobody_waits_for_himself() {
    let mut turn = turn_over(&[]);
    turn.chain = vec![actor("a"), actor("b")];
    let invoked = turn.invoke("account", "a".into(), "m".into(), Vec::new());
    let circle = "bank/account/a → bank/account/b → bank/account/me → bank/account/a";
    refused(invoked.await, circle);
    let invoked = turn.invoke("account", "me".into(), "m".into(), Vec::new());
    refused(invoked.await, "would wait for itself");
    turn.chain = (1..MAX_CHAIN).map(|n| actor(&n.to_string())).collect();
    let invoked = turn.invoke("account", "c".into(), "m".into(), Vec::new());
    refused(invoked.await, "16 actors");
    turn.chain = vec![actor("a")];
    let invoked = turn.invoke("account", "c".into(), "m".into(), Vec::new());
    refused(invoked.await, "no such method");
    turn.chain = Vec::new();
    let invoked = turn.invoke("account", "c".into(), "m".into(), Vec::new());
    assert_eq!(invoked.await.expect("it is answered"), b"me");
}

/// Reads that count how often somebody waits for what was read.
#[derive(Default)]
struct CountedReads(std::sync::atomic::AtomicUsize);

#[async_trait]
impl Reads for CountedReads {
    async fn get(&self, _: Vec<u8>) -> Result<Option<Bytes>, Problem> {
        Ok(None)
    }

    async fn scan(&self, _: keys::KeyRange, _: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        Ok(Vec::new())
    }

    async fn durable(&self) -> Result<(), Problem> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn others_are_invoked_once_what_turns_before_wrote_is_durable() {
    for (is_unsettled, n_waits) in [(false, 0), (true, 1)] {
        let reads = Arc::new(CountedReads::default());
        let mut turn = turn_over(&[]);
        turn.reads = Arc::clone(&reads) as Arc<dyn Reads>;
        turn.is_unsettled = is_unsettled;
        for _ in 0..2 {
            let invoked = turn.invoke("account", "you".into(), "m".into(), Vec::new());
            invoked.await.expect("it is answered");
        }
        let waits = reads.0.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(waits, n_waits);
    }
}
