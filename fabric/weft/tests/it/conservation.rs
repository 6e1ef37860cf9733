//! Conservation: what the reduce stages read is what the map stage wrote. Objects that the store does not have as they
//! were written are found, and written again; the job says where it was.

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock::until_empty;
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::{folder, job, outputs};

/// One segment of a shuffle object, as the index at its end tells.
struct Segment {
    edge: u64,
    partition: u64,
    offset: usize,
    length: usize,
}

/// Reads the index: `segments │ 7 words for each segment │ number of segments │ magic`, in words of 64 bits.
fn segments(object: &[u8]) -> Vec<Segment> {
    const WORDS: usize = 7;
    let word = |at: usize| {
        let bytes = object[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    };
    let position = |at: usize| usize::try_from(word(at)).expect("objects are small");
    let count = position(object.len() - 16);
    let start = object.len() - 16 - count * WORDS * 8;
    let entries = (0..count).map(|entry| start + entry * WORDS * 8);
    let segment = |at: usize| Segment {
        edge: word(at) >> 32,
        partition: word(at) & u64::from(u32::MAX),
        offset: position(at + 16),
        length: position(at + 24),
    };
    entries.map(segment).collect()
}

/// Runs the weblog job until its map stage has ended, and stops the server there. Gives the job, and the objects by task.
fn hold_after_map(fixture: &Fixture, place: &Place) -> (String, Vec<PathBuf>) {
    let setup = Setup::default().with_failpoints("reduce=kill-parent", &place.path("once"));
    let server = Server::start(&place.data(), &setup);
    let id = job::submit(&server, &job::weblog(&fixture.logs(), &place.out()));
    server.wait_until_killed();
    let stage = place.data().join("store/jobs").join(&id).join("0");
    let mut objects = folder::files(&stage);
    objects.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "shuffle")
    });
    assert!(objects.len() > 2, "{objects:?}");
    (id, objects)
}

/// Runs the job on after `damage` was done to its objects: whoever wrote them runs again, and the outputs are those of
/// an undisturbed run. Gives the failed attempts' details, each behind the stage that read, and tasks that ran again.
fn heals_after(damage: impl FnOnce(&[PathBuf])) -> (Vec<String>, Vec<u64>) {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let (id, objects) = hold_after_map(&fixture, &place);
    damage(&objects);
    let server = Server::start(&place.data(), &Setup::default());
    let ended = job::wait(&server, &id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    until_empty("nothing is left behind", || {
        folder::leftovers(&place.data())
    });
    let found = outputs::published(&place.out());
    outputs::assert_same(
        &found,
        &fixture.expected,
        "after objects were written again",
    );
    let list = Request::get(format!("/v1/jobs/{id}/events"));
    let list = server.ask(&list.header("accept", "application/json")).ok();
    let events = list["items"].as_array().expect("events");
    eprintln!("{events:#?}");
    let of = |kind: &'static str| events.iter().filter(move |event| event["kind"] == kind);
    let failed = of("attempt_failed").map(|event| {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        format!("stage `{}`: {}", text("stage"), text("detail"))
    });
    let failed = failed.filter(|text| text.contains("stage `visits` wrote"));
    let lost = of("object_lost").map(|event| {
        assert_eq!(event["stage"], "visits");
        event["task"].as_u64().expect("a task")
    });
    (failed.collect(), lost.collect())
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the object is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("it writes");
}

/// Position of the task that wrote an object, which its name begins with.
fn writer(object: &Path) -> u64 {
    let name = object.file_name().and_then(|name| name.to_str());
    let task = name.and_then(|name| name.split('-').next());
    task.and_then(|task| task.parse().ok())
        .expect("a task's number")
}

/// Panics unless one of the attempts says all of it.
fn assert_names(failed: &[String], names: &[&str]) {
    let says = |text: &String| names.iter().all(|name| text.contains(name));
    assert!(failed.iter().any(says), "{names:?} are not in: {failed:#?}");
}

#[test]
fn a_flipped_byte_of_a_segment_is_found_and_mended() {
    for (edge, reader) in [(0, "daily"), (1, "top")] {
        let (mut partition, mut task) = (0, 0);
        let (failed, lost) = heals_after(|objects| {
            task = writer(&objects[1]);
            change(&objects[1], |object| {
                let segments = segments(object);
                let of_edge = |segment: &&Segment| segment.edge == edge;
                let segment = segments.iter().rfind(of_edge).expect("it has segments");
                partition = segment.partition;
                object[segment.offset + segment.length / 2] ^= 0x10;
            });
        });
        let (partition, reader) = (
            format!("partition `{partition}`"),
            format!("stage `{reader}`"),
        );
        assert_names(&failed, &[&partition, &reader, "checksum differs"]);
        assert_eq!(lost, [task]);
    }
}

#[test]
fn a_flipped_byte_of_an_index_is_found_and_mended() {
    let mut task = 0;
    let (failed, lost) = heals_after(|objects| {
        task = writer(&objects[1]);
        change(&objects[1], |object| {
            let n = object.len();
            object[n - 20] ^= 1;
        });
    });
    assert_names(&failed, &["checksum of its index"]);
    assert_eq!(lost, [task]);
}

#[test]
fn a_truncated_object_is_found_and_mended() {
    for cut in [1, 4096] {
        let mut task = 0;
        let (failed, lost) = heals_after(|objects| {
            task = writer(&objects[0]);
            change(&objects[0], |object| object.truncate(object.len() - cut));
        });
        assert_names(&failed, &["bytes"]);
        assert_eq!(lost, [task]);
    }
}

#[test]
fn a_missing_object_is_found_and_mended() {
    let mut task = 0;
    let (failed, lost) = heals_after(|objects| {
        task = writer(&objects[2]);
        fs::remove_file(&objects[2]).expect("it was there");
    });
    assert_names(&failed, &["the store does not have it"]);
    assert_eq!(lost, [task]);
}

#[test]
fn objects_that_changed_places_are_found_and_mended() {
    let mut tasks = Vec::new();
    let (failed, mut lost) = heals_after(|objects| {
        tasks = vec![writer(&objects[0]), writer(&objects[1])];
        let aside = objects[0].with_extension("aside");
        fs::rename(&objects[0], &aside).expect("it was there");
        fs::rename(&objects[1], &objects[0]).expect("it was there");
        fs::rename(&aside, &objects[1]).expect("it was there");
    });
    assert_names(&failed, &["stage `visits`"]);
    lost.sort_unstable();
    tasks.sort_unstable();
    assert_eq!(lost, tasks);
}
