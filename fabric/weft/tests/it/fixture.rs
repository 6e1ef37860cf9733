//! What many tests start from: a week of logs, a data folder with components, and what an undisturbed run of the job made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

use crate::access_log::{AccessLog, Size};
use crate::clock::{now, until_empty};
use crate::server::{Server, Setup};
use crate::{folder, job, outputs};

const LOG_SEED: u64 = 11;
const SIZE: Size = Size {
    file_bytes: 4_000_000,
    n_files: 6,
    n_gzip_files: 1,
};

pub(crate) struct Fixture {
    root: TempDir,
    pub(crate) log: AccessLog,
    /// What the job publishes when nothing goes wrong.
    pub(crate) expected: BTreeMap<PathBuf, Vec<u8>>,
    /// How long it takes then, from its acceptance to its end.
    pub(crate) undisturbed: Duration,
}

impl Fixture {
    /// The one that other tests use at this time, or a new one. It goes away with the last of them.
    pub(crate) fn shared() -> Arc<Fixture> {
        static SHARED: Mutex<Weak<Fixture>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fixture) = shared.upgrade() {
            return fixture;
        }
        let fixture = Arc::new(Fixture::new());
        *shared = Arc::downgrade(&fixture);
        fixture
    }

    fn new() -> Fixture {
        let root = tempfile::tempdir().expect("a folder");
        let log = AccessLog::write(&root.path().join("logs"), &SIZE, LOG_SEED);
        let data = root.path().join("data");
        let server = Server::start(&data, &Setup::default());
        for guest in ["hello", "weblog", "vandal"] {
            job::deploy(&server, guest);
        }
        // The first run warms what later runs find warm.
        let mut undisturbed = Duration::MAX;
        let mut expected = BTreeMap::new();
        for run in 0..3 {
            let out = root.path().join(format!("out-{run}"));
            let began = now();
            job::run(&server, &job::weblog(&root.path().join("logs"), &out));
            undisturbed = undisturbed.min(began.elapsed());
            expected = outputs::published(&out);
        }
        until_empty("the jobs are archived", || folder::leftovers(&data));
        assert!(server.stop().success());
        Fixture {
            root,
            log,
            expected,
            undisturbed,
        }
    }

    /// The folder of the logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.path().join("logs")
    }

    /// The outputs of an undisturbed run.
    pub(crate) fn undisturbed_outputs(&self) -> PathBuf {
        self.root.path().join("out-2")
    }

    /// Makes a data folder that has the components `hello`, `weblog` and `vandal`, and has run jobs.
    pub(crate) fn copy_data(&self, to: &Path) {
        folder::copy(&self.root.path().join("data"), to);
    }
}

/// The folders of one test: data of its server, outputs of its jobs.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }

    /// A place whose data folder is a copy of the fixture's.
    pub(crate) fn with_components(fixture: &Fixture) -> Place {
        let place = Place::new();
        fixture.copy_data(&place.data());
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }
}
