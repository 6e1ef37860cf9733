use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::time::timeout;
use weft_core::{ActorRef, ErrorCode, lock};
use weft_runtime::Scoped;

use super::super::reads::fake::MapReads;
use super::super::stored::encode;
use super::*;

const TO: u32 = 3;

/// Says what it was sent, and answers as it is told.
#[derive(Default)]
struct FakeDelivery {
    sent: Mutex<Vec<u64>>,
    answers: Mutex<VecDeque<ErrorCode>>,
}

/// Messages that leave the outbox once they have been read.
struct Withdrawn(MapReads);

#[async_trait]
impl Reads for Withdrawn {
    async fn get(&self, _: Vec<u8>) -> Result<Option<Bytes>, Problem> {
        Ok(None)
    }

    async fn scan(
        &self,
        range: keys::KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        self.0.scan(range, limit).await
    }

    async fn durable(&self) -> Result<(), Problem> {
        Ok(())
    }
}

#[async_trait]
impl Delivery for FakeDelivery {
    async fn deliver(&self, id: MessageId, message: Message) -> Result<(), Problem> {
        assert_eq!(id.shard, 1);
        assert_eq!(message.input, id.number.to_be_bytes());
        lock(&self.sent).push(id.number);
        match lock(&self.answers).pop_front() {
            Some(code) => Err(Problem::new(code, "it is to fail")),
            None => Ok(()),
        }
    }
}

/// A lane with messages of these numbers.
struct Fixture {
    delivery: Arc<FakeDelivery>,
    lanes: Lanes,
    steps: mpsc::Receiver<Step>,
    _lane: Scoped,
}

fn lane(numbers: &[u64], durable: u64, answers: &[ErrorCode]) -> Fixture {
    lane_of(Arc::new(outbox(numbers)), durable, answers)
}

fn outbox(numbers: &[u64]) -> MapReads {
    let actor = |key: &str| ActorRef::new("bank", "account", key).expect("a valid key");
    let mut reads = MapReads::default();
    for number in numbers {
        let message = Message {
            from: actor("a"),
            to: actor("b"),
            method: "m".into(),
            input: number.to_be_bytes().to_vec(),
        };
        reads.0.insert(keys::message(TO, *number), encode(&message));
    }
    // Neighbours, which are not for this lane.
    reads.0.insert(keys::message(TO - 1, 5), vec![0]);
    reads.0.insert(keys::message(TO + 1, 5), vec![0]);
    reads
}

fn lane_of(reads: Arc<dyn Reads>, durable: u64, answers: &[ErrorCode]) -> Fixture {
    let delivery = Arc::new(FakeDelivery {
        answers: Mutex::new(answers.iter().copied().collect()),
        ..FakeDelivery::default()
    });
    let (lanes, (steps, written)) = (Lanes::new(durable), mpsc::channel(64));
    let lane = Lane {
        from_shard: 1,
        to_shard: TO,
        durable: lanes.follow(TO),
        reads,
        delivery: Arc::clone(&delivery) as Arc<dyn Delivery>,
        steps,
        first_pause: Duration::from_millis(1),
    };
    let run = async move { lane.run().await.expect("it can be read") };
    Fixture {
        delivery,
        lanes,
        steps: written,
        _lane: Scoped::new(run),
    }
}

impl Fixture {
    /// The next commit of the lane: the messages that it removes, and whether one was given up.
    async fn removed(&mut self) -> (u64, bool) {
        let step = timeout(Duration::from_secs(30), self.steps.recv()).await;
        let Ok(Some(Step::Commit(commit))) = step else {
            panic!("no message was removed");
        };
        let [key] = &commit.removed[..] else {
            panic!("one at a time");
        };
        let (to, number) = keys::message_of(key).expect("the key of a message");
        assert_eq!(to, TO);
        (number, commit.dead.is_some())
    }

    fn sent(&self) -> Vec<u64> {
        lock(&self.delivery.sent).clone()
    }
}

#[tokio::test]
async fn messages_go_in_order_and_only_once_they_are_durable() {
    let mut lane = lane(&[4, 7, 9], 7, &[]);
    assert_eq!(lane.removed().await, (4, false));
    assert_eq!(lane.removed().await, (7, false));
    assert_eq!(lane.sent(), [4, 7]);
    lane.lanes.durable(TO, 9);
    assert_eq!(lane.removed().await, (9, false));
    assert_eq!(lane.sent(), [4, 7, 9]);
}

#[tokio::test]
async fn the_platforms_failures_are_tried_again_as_often_as_it_takes() {
    let answers = [ErrorCode::Busy, ErrorCode::StoreUnavailable].repeat(4);
    let mut lane = lane(&[4, 5], 5, &answers);
    assert_eq!(lane.removed().await, (4, false));
    assert_eq!(lane.removed().await, (5, false));
    assert_eq!(lane.sent(), [[4; 9].as_slice(), &[5]].concat());
}

#[tokio::test]
async fn a_message_that_its_receiver_refuses_is_given_up_and_the_next_one_goes() {
    let refusals = usize::try_from(MAX_MESSAGE_ATTEMPTS).expect("it is small");
    let mut answers = vec![ErrorCode::Busy];
    answers.extend(vec![ErrorCode::GuestError; refusals]);
    let mut lane = lane(&[4, 5], 5, &answers);
    assert_eq!(lane.removed().await, (4, true));
    assert_eq!(lane.removed().await, (5, false));
    assert_eq!(lane.sent().len(), refusals + 2);
}

#[tokio::test]
async fn a_message_whose_sender_is_deleted_is_not_sent_again() {
    let reads = Arc::new(Withdrawn(outbox(&[4, 5])));
    let mut lane = lane_of(reads, 5, &[ErrorCode::GuestError]);
    assert_eq!(lane.removed().await, (5, false));
    assert_eq!(lane.sent(), [4, 5]);
}

#[test]
fn room_is_taken_until_messages_are_removed() {
    let room = Room::default();
    let mut kept = room.reserve();
    assert!(kept.one_more() && kept.one_more());
    let mut dropped = room.reserve();
    assert!(dropped.one_more());
    kept.keep();
    drop(dropped);
    assert_eq!(room.taken(), 2);
    room.free(2);
    assert_eq!(room.taken(), 0);
}
