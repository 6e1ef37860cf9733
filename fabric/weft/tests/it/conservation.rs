//! Conservation: what the reduce stages read is what the map stage wrote, or the job fails and says where it is not.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::clock::until_empty;
use crate::fixture::{Fixture, Place};
use crate::server::{Server, Setup};
use crate::{folder, job};

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

/// Runs the job on after `damage` was done to its objects: it must fail, publish nothing, and harm no other job.
fn fails_after(damage: impl FnOnce(&[PathBuf])) -> Value {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let (id, objects) = hold_after_map(&fixture, &place);
    damage(&objects);
    let server = Server::start(&place.data(), &Setup::default());
    let ended = job::wait(&server, &id);
    assert_eq!(ended["status"], "failed", "{ended:#}");
    until_empty("nothing is left behind", || {
        folder::leftovers(&place.data())
    });
    let left = folder::files(&place.out());
    assert!(left.is_empty(), "a job that failed has published {left:?}");
    job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
    let problem = ended["problem"].clone();
    eprintln!("{problem:#}");
    problem
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the object is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("it writes");
}

/// Panics unless the problem says where rows are wrong: which stage wrote them, and which partition, or task, was to read them.
fn assert_names(problem: &Value, names: &[&str]) {
    let detail = problem["detail"].as_str().expect("problems have details");
    for name in names {
        assert!(detail.contains(name), "`{name}` is not in: {detail}");
    }
}

#[test]
fn a_flipped_byte_of_a_segment_fails_the_job() {
    for (edge, reader) in [(0, "daily"), (1, "top")] {
        let mut partition = 0;
        let problem = fails_after(|objects| {
            change(&objects[1], |object| {
                let segments = segments(object);
                let of_edge = |segment: &&Segment| segment.edge == edge;
                let segment = segments.iter().rfind(of_edge).expect("it has segments");
                partition = segment.partition;
                object[segment.offset + segment.length / 2] ^= 0x10;
            });
        });
        let partition = format!("partition `{partition}`");
        assert_names(
            &problem,
            &["stage `visits`", &partition, &format!("stage `{reader}`")],
        );
    }
}

#[test]
fn a_flipped_byte_of_an_index_fails_the_job() {
    let problem = fails_after(|objects| {
        change(&objects[1], |object| {
            let n = object.len();
            object[n - 20] ^= 1;
        });
    });
    assert_names(&problem, &["stage `visits`", ", task ", "checksum"]);
}

#[test]
fn a_truncated_object_fails_the_job() {
    for cut in [1, 4096] {
        let problem = fails_after(|objects| {
            change(&objects[0], |object| object.truncate(object.len() - cut));
        });
        assert_names(&problem, &["stage `visits`", ", task "]);
    }
}

#[test]
fn a_missing_object_fails_the_job() {
    let problem = fails_after(|objects| fs::remove_file(&objects[2]).expect("it was there"));
    assert_names(&problem, &["stage `visits`", ", task "]);
}

#[test]
fn objects_that_changed_places_fail_the_job() {
    let problem = fails_after(|objects| {
        let aside = objects[0].with_extension("aside");
        fs::rename(&objects[0], &aside).expect("it was there");
        fs::rename(&objects[1], &objects[0]).expect("it was there");
        fs::rename(&aside, &objects[1]).expect("it was there");
    });
    assert_names(&problem, &["stage `visits`", ", task "]);
}
