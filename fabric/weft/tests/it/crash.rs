//! Crashes: wherever the server or its executor is killed, nothing acknowledged is lost and the job ends with the same bytes.

use std::path::Path;
use std::thread::sleep;

use crate::clock::{eventually, now, parse_ms, unix_ms, until_empty};
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::random::Random;
use crate::server::{Server, Setup, kill};
use crate::survivor::Survivor;
use crate::{folder, guests, job, outputs};

/// What a kill leaves the client to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// Uploads two components to an empty server, then runs a job.
    Upload,
    /// Runs two jobs on a server that has the components.
    Jobs,
}

/// Runs the story with `point` armed for one kill, and checks all that must hold after it. `deaths`: how often the server dies
/// of it; not at all where an executor is killed.
fn play(fixture: &Fixture, story: Story, point: &str, deaths: u32) {
    let place = match story {
        Story::Upload => Place::new(),
        Story::Jobs => Place::with_components(fixture),
    };
    let once = place.path("once");
    let setup = Setup::default()
        .with_failpoints(point, &once)
        .with("WEFT__RAFT__SNAPSHOT_EVERY", "5");
    let mut survivor = Survivor::start(&place, setup);
    if story == Story::Upload {
        survivor.deploy("hello");
        survivor.deploy("weblog");
    }
    let n_jobs = if story == Story::Jobs { 2 } else { 1 };
    let mut jobs = Vec::new();
    for number in 0..n_jobs {
        let out = place.out().join(number.to_string());
        let id = survivor.submit(&job::weblog(&fixture.logs(), &out), &number.to_string());
        jobs.push((id, out));
    }
    for (id, out) in &jobs {
        check_end(fixture, &mut survivor, id, out);
    }
    // The kill may come after all that a client sees of the jobs: when the last one is archived.
    eventually(&format!("{point} is passed so often"), || {
        once.exists().then_some(())
    });
    if survivor.deaths < deaths {
        survivor.wait_until_died(deaths);
        for (id, out) in &jobs {
            check_end(fixture, &mut survivor, id, out);
        }
    }
    assert_eq!(survivor.deaths, deaths, "{point}: the server dies so often");
}

/// Waits for the job's end, and checks that it is the same as without crashes and that nothing is left behind.
fn check_end(fixture: &Fixture, survivor: &mut Survivor<'_>, id: &str, out: &Path) {
    let ended = survivor.wait(id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    outputs::assert_same(&outputs::published(out), &fixture.expected, id);
    survivor.wait_until_tidy(out);
}

/// Kills of the server, by stage of its work: the story, the point and how, and at which passes.
const SERVER_KILLS: &[(&str, Story, &str, &[u32])] = &[
    ("upload", Story::Upload, "upload=kill", &[1, 2, 4]),
    ("upload", Story::Upload, "upload-stored=kill", &[1, 2]),
    ("compile", Story::Upload, "compile=kill-parent", &[1]),
    ("compile", Story::Upload, "compiled=kill", &[1, 2]),
    ("register", Story::Upload, "register=kill", &[1, 2]),
    ("plan", Story::Jobs, "planned=kill", &[1, 2]),
    ("map", Story::Jobs, "map=kill-parent", &[1, 2, 20]),
    (
        "shuffle",
        Story::Jobs,
        "shuffle-write=kill-parent",
        &[1, 2, 11],
    ),
    (
        "shuffle",
        Story::Jobs,
        "shuffle-commit=kill-parent",
        &[1, 2, 11],
    ),
    ("commit", Story::Jobs, "commit=kill", &[1, 2, 5]),
    ("reduce", Story::Jobs, "reduce=kill-parent", &[1, 2, 5]),
    ("publish", Story::Jobs, "publish=kill-parent", &[1, 2, 5]),
    (
        "publish",
        Story::Jobs,
        "publish-manifest=kill-parent",
        &[1, 2],
    ),
    ("publish", Story::Jobs, "published=kill", &[1, 2]),
    ("archive", Story::Jobs, "archived=kill", &[1, 2]),
    ("log", Story::Jobs, "raft-append=kill", &[1, 2, 4, 6, 9]),
    ("log", Story::Jobs, "raft-appended=kill", &[1, 2, 4, 6, 9]),
    ("snapshot", Story::Jobs, "snapshot-write=kill", &[1, 2, 3]),
    ("snapshot", Story::Jobs, "snapshot-written=kill", &[1, 2, 3]),
];

#[test]
fn a_server_that_is_killed_anywhere_goes_on() {
    let fixture = Fixture::shared();
    for (stage, story, point, passes) in SERVER_KILLS {
        for pass in *passes {
            let began = now();
            play(&fixture, *story, &format!("{point}@{pass}"), 1);
            eprintln!(
                "{stage}: {point}@{pass}: {} ms",
                began.elapsed().as_millis()
            );
        }
    }
}

/// Every executor dies at its twelfth batch, and no task has that many: only those that share one suffer from others.
#[test]
fn tasks_that_ran_beside_one_that_kills_its_executor_run_alone() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let setup = Setup::default().with("WEFT_FAILPOINTS", "map=kill@12");
    let server = Server::start(&place.data(), &setup);
    job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
    outputs::assert_same(
        &outputs::published(&place.out()),
        &fixture.expected,
        "alone",
    );
    assert!(
        server.log().contains("executor lost"),
        "none died: more batches a task, or fewer to the point?"
    );
}

/// The second component's compilation is another process, in which the point is passed for the first time.
#[test]
fn a_server_that_is_killed_in_its_second_compilation_goes_on() {
    let place = Place::new();
    let mut survivor = Survivor::start(&place, Setup::default());
    survivor.deploy("hello");
    drop(survivor);
    let setup = Setup::default().with_failpoints("compile=kill-parent", &place.path("once"));
    let mut survivor = Survivor::start(&place, setup);
    survivor.deploy("hello");
    survivor.deploy("weblog");
    assert_eq!(survivor.deaths, 1);
}

/// The outputs of a job are published one after the other: when the last one cannot be, the first one is taken back.
#[test]
fn what_is_published_of_a_job_that_fails_is_withdrawn() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let setup = Setup::default().with_failpoints("publish=kill-parent", &place.path("once"));
    let server = Server::start(&place.data(), &setup);
    let id = job::submit(&server, &job::weblog(&fixture.logs(), &place.out()));
    server.wait_until_killed();

    // While the server is down, somebody else puts a file where the second output's is to be.
    let of_top = fixture.expected.keys().find(|path| path.starts_with("top"));
    let taken = place.out().join(of_top.expect("the job has that output"));
    std::fs::write(&taken, "somebody else's").expect("it writes");
    let server = Server::start(&place.data(), &setup);
    let ended = job::wait(&server, &id);
    assert_eq!(ended["problem"]["code"], "output_exists", "{ended:#}");
    until_empty("nothing is left behind", || {
        let mut left = folder::leftovers(&place.data());
        left.extend(folder::files(&place.out()));
        left.retain(|path| *path != taken);
        left
    });
    let kept = std::fs::read_to_string(&taken).expect("it is there");
    assert_eq!(kept, "somebody else's");
}

#[test]
fn a_compiler_that_is_killed_costs_only_its_upload() {
    let place = Place::new();
    let setup = Setup::default().with_failpoints("compile=kill", &place.path("once"));
    let server = Server::start(&place.data(), &setup);
    let upload = Request::component(guests::bytes("hello"));
    let refused = server.ask(&upload);
    // Whoever killed it, the component was not at fault: the client may try again.
    assert_eq!(refused.json()["code"], "busy", "{}", refused.text());
    assert!(folder::leftovers(&place.data()).is_empty());
    assert_eq!(server.ask(&upload).status, 201);
    job::run(&server, &job::noop(1));
}

/// Kills of the executor by itself.
const EXECUTOR_KILLS: &[(&str, &[u32])] = &[
    ("map=kill", &[1, 2, 20]),
    ("shuffle-write=kill", &[1, 2, 11]),
    ("shuffle-commit=kill", &[1, 2, 11]),
    ("reduce=kill", &[1, 2, 5]),
    ("publish=kill", &[1, 2, 5]),
    ("publish-manifest=kill", &[1, 2]),
];

#[test]
fn an_executor_that_is_killed_anywhere_costs_only_its_tasks() {
    let fixture = Fixture::shared();
    for (point, passes) in EXECUTOR_KILLS {
        for pass in *passes {
            let began = now();
            play(&fixture, Story::Jobs, &format!("{point}@{pass}"), 0);
            eprintln!(
                "executor: {point}@{pass}: {} ms",
                began.elapsed().as_millis()
            );
        }
    }
}

/// Moments at which the server is killed, and at which its executor is.
const SERVER_MOMENTS: u32 = 20;
const EXECUTOR_MOMENTS: u32 = 20;
/// Moments that are drawn before the test gives up: those after the job's end do not count.
const DRAWS_MAX: u32 = 200;

/// Runs jobs, one after the other on the same data folder, and does `crash` to each at a moment of its undisturbed run that
/// is drawn uniformly, until `moments` of them hit a job that had not ended.
fn crash_at_random(moments: u32, seed: u64, what: &str, crash: impl Fn(&mut Survivor<'_>)) -> u32 {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let mut random = Random::seeded(what, seed);
    let mut survivor = Survivor::start(&place, Setup::default());
    let (mut hits, mut draws) = (0, 0);
    while hits < moments {
        draws += 1;
        assert!(draws <= DRAWS_MAX, "{what}: jobs end before they are hit");
        let out = place.out().join(draws.to_string());
        let id = survivor.submit(&job::weblog(&fixture.logs(), &out), &draws.to_string());
        let accepted = now();
        let fraction = random.fraction();
        sleep(
            fixture
                .undisturbed
                .mul_f64(fraction)
                .saturating_sub(accepted.elapsed()),
        );
        let before = survivor.show(&id);
        let (at, at_ms) = (accepted.elapsed(), unix_ms());
        if !job::has_ended(&before) {
            crash(&mut survivor);
        }
        check_end(&fixture, &mut survivor, &id, &out);
        let ended = survivor.show(&id);
        let ended_ms = parse_ms(ended["ended_at"].as_str().expect("it has ended"));
        if !job::has_ended(&before) && ended_ms >= at_ms {
            hits += 1;
            eprintln!(
                "{what} {hits:2}: at {:4.1} % of {:?}, after {at:?}: {}",
                fraction * 100.0,
                fixture.undisturbed,
                job::position(&before)
            );
        }
    }
    survivor.deaths
}

#[test]
fn a_server_that_is_killed_at_any_moment_goes_on() {
    crash_at_random(SERVER_MOMENTS, 20_251_006, "server", |survivor| {
        survivor.crash()
    });
}

#[test]
fn an_executor_that_is_killed_at_any_moment_costs_only_its_tasks() {
    let deaths = crash_at_random(EXECUTOR_MOMENTS, 20_251_007, "executor", |survivor| {
        // Between two executors there is none, and nothing to kill.
        survivor
            .server()
            .children("executor")
            .into_iter()
            .for_each(kill);
    });
    assert_eq!(deaths, 0, "the server stays up");
}
