use weft_protocol::SinkFile;

use super::super::key_of;
use super::super::upload::Upload;
use super::*;

/// Publications that come after the one that is asked for.
const MANY: u128 = 300;

/// A folder whose manifest is written by one process after the other.
#[derive(Default)]
struct Folder {
    manifest: Option<Manifest>,
    now: u64,
}

fn job(number: u128) -> JobId {
    JobId::new(1, number)
}

fn output(mode: OutputMode) -> ManifestOutput {
    ManifestOutput {
        name: "t".into(),
        folder: "s3://lake/t".into(),
        is_kept: false,
        format: "csv".into(),
        schema: Vec::new(),
        files: Vec::new(),
        partition_by: Vec::new(),
        mode,
    }
}

fn pending(job: &JobId) -> Pending {
    let name = "part-t-00000.csv";
    Pending {
        file: SinkFile {
            output: "t".into(),
            staged: "list".into(),
            name: name.into(),
            rows: 1,
            bytes: 1,
            xxh3: String::new(),
        },
        upload: Upload {
            name: name.into(),
            key: key_of(name, job, "a-1-1"),
            id: "1".into(),
            parts: Vec::new(),
            bytes: 1,
            e_tag: String::new(),
        },
    }
}

impl Folder {
    /// Applies a change, and returns whether there was one.
    fn apply(&mut self, change: Change) -> bool {
        let Change::Write(mut manifest) = change else {
            return false;
        };
        let ledger = manifest.ledger.as_mut().expect("it has one");
        ledger.stamp(self.now);
        self.manifest = Some(*manifest);
        true
    }

    fn publish(&mut self, number: u128, mode: OutputMode) -> Result<bool> {
        let job = job(number);
        let pending = [pending(&job)];
        let change = with_publication(self.manifest.as_ref(), &job, &output(mode), &pending)?;
        Ok(self.apply(change))
    }

    fn fail(&mut self, number: u128) -> bool {
        let output = output(OutputMode::Append);
        let change = with_withdrawal(self.manifest.as_ref(), &job(number), &output);
        self.apply(change)
    }

    /// Removes the files that a job has replaced. Returns them.
    fn remove_replaced(&self, number: u128) -> Vec<String> {
        replaced_by(self.manifest.as_ref(), &job(number))
    }

    fn forget(&mut self, number: u128, gone: &[String]) {
        let change = without_replaced(self.manifest.as_ref(), &job(number), gone);
        self.apply(change);
    }

    fn succeed(&mut self, number: u128) {
        let gone = self.remove_replaced(number);
        self.forget(number, &gone);
    }

    fn remembers(&self, number: u128) -> bool {
        let ledger = ledger_of(self.manifest.as_ref());
        ledger.publication(job(number).as_str()).is_some()
    }

    /// The jobs of `0..=MANY` whose files are listed.
    fn jobs(&self) -> Vec<u128> {
        let files = self.manifest.iter().flat_map(|manifest| &manifest.files);
        let keys: Vec<&str> = files.map(ManifestFile::key).collect();
        let has = |number: &u128| keys.iter().any(|key| is_of(&job(*number), key));
        (0..=MANY).filter(has).collect()
    }
}

#[test]
fn a_publication_is_not_done_again_after_many_others() {
    use OutputMode::{Append, Overwrite};
    for mode in [Append, Overwrite] {
        let mut folder = Folder::default();
        for number in 0..=MANY {
            assert!(folder.publish(number, mode).expect("it publishes"));
            folder.succeed(number);
        }
        let jobs = folder.jobs();
        assert!(!folder.publish(0, mode).expect("it is known"), "{mode:?}");
        assert_eq!(folder.jobs(), jobs, "{mode:?}");
    }
}

#[test]
fn a_withdrawal_is_remembered_for_a_day() {
    // Almost a day passes.
    let mut folder = Folder::default();
    assert!(folder.fail(0));
    for number in 1..=MANY {
        folder.now += 200;
        folder
            .publish(number, OutputMode::Append)
            .expect("it is new");
    }
    let late = folder.publish(0, OutputMode::Append);
    assert!(matches!(late, Err(Error::Withdrawn(_))), "{late:?}");
}

#[test]
fn a_job_that_is_forgotten_is_known_by_its_files() {
    let mut folder = Folder::default();
    for number in 0..=2 {
        folder
            .publish(number, OutputMode::Append)
            .expect("it is new");
        folder.now += 2 * REMEMBERED_S;
    }
    assert!(!folder.remembers(0));
    assert!(!folder.publish(0, OutputMode::Append).expect("it is known"));
    assert_eq!(folder.jobs(), [0, 1, 2]);
}

#[test]
fn a_job_that_is_not_cleaned_up_is_not_forgotten() {
    let mut folder = Folder::default();
    folder.publish(0, OutputMode::Append).expect("it is new");
    folder.publish(1, OutputMode::Overwrite).expect("it is new");
    for number in 2..=MANY {
        folder.now += REMEMBERED_S;
        folder
            .publish(number, OutputMode::Append)
            .expect("it is new");
    }
    assert!(!folder.remembers(0) && folder.remembers(1));
    assert!(folder.fail(1));
    let expected: Vec<u128> = (0..=MANY).filter(|number| *number != 1).collect();
    assert_eq!(folder.jobs(), expected);
}

#[test]
fn a_full_ledger_refuses_jobs_and_takes_withdrawals() {
    let next: u128 = 1 << 64;
    let one = |number: usize| Publication {
        job: format!("job-{number}"),
        overwrites: false,
        is_withdrawn: false,
        at: Some(0),
    };
    let ledger = Ledger {
        publications: (0..MAX_PUBLICATIONS).map(one).collect(),
        ..Ledger::default()
    };
    let manifest = Manifest {
        ledger: Some(ledger),
        ..empty(&job(0), &output(OutputMode::Append))
    };
    let mut folder = Folder {
        manifest: Some(manifest),
        now: 1,
    };
    let refused = folder.publish(next, OutputMode::Append);
    assert!(
        matches!(refused, Err(Error::OverLimit { .. })),
        "{refused:?}"
    );
    assert!(folder.fail(next));
    assert!(folder.remembers(next));
    let ledger = ledger_of(folder.manifest.as_ref());
    assert_eq!(ledger.publications.len(), MAX_PUBLICATIONS + 1);
}

#[test]
fn what_comes_to_a_job_while_it_removes_files_is_removed_as_well() {
    let mut folder = Folder::default();
    for number in 0..3 {
        let published = folder.publish(number, OutputMode::Overwrite);
        assert!(published.expect("it publishes"));
        if number == 0 {
            folder.succeed(number);
        }
    }
    let gone = folder.remove_replaced(2);
    assert!(gone.len() == 1 && is_of(&job(1), &gone[0]), "{gone:?}");
    // The job that had replaced the first one's files is withdrawn before these are forgotten.
    assert!(folder.fail(1));
    folder.forget(2, &gone);
    let left = folder.remove_replaced(2);
    assert!(left.len() == 1 && is_of(&job(0), &left[0]), "{left:?}");
    assert!(replaces(folder.manifest.as_ref(), &job(2)));
    folder.forget(2, &left);
    assert!(!replaces(folder.manifest.as_ref(), &job(2)));
    assert_eq!(folder.jobs(), [2]);
}
