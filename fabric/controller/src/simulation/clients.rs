//! Clients: they ask any controller, and ask again until they have an answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use weft_control::{Answer, Begun, CallOutcome, Command, ComponentRecord};
use weft_core::{Digest, ErrorCode, JobId, Meters, Problem, TenantId, lock};

use crate::clock::Clock;
use crate::membership::{self, Wanted};
use crate::replica::Replica;
use crate::scheduler::tests::world::{component, spec};
use crate::simulation::books::SharedBooks;
use crate::simulation::bugs::Bug;

/// Something that a client wants.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// A version of the component, with its artefact.
    Register(String),
    /// A job, under a key.
    Submit { tenant: TenantId, key: String },
    /// An end of a job, if it is there.
    Cancel { tenant: TenantId, job: JobId },
    /// An invocation, under a key.
    Call(String),
    /// A look at all that was acknowledged.
    Read,
    /// A controller in the place of one that has lost its disk.
    Replace { old: u64, new: u64 },
}

/// The means of a client that asks one controller once.
pub(super) struct Try {
    pub(super) replica: Replica,
    pub(super) member: u64,
    pub(super) clock: Clock,
    pub(super) books: SharedBooks,
    pub(super) bug: Option<Bug>,
    /// Different for each try.
    pub(super) number: u64,
    /// Keys of calls that are being made by this process.
    pub(super) keyed: Keyed,
}

/// Keys of calls.
pub(super) type Keyed = Arc<Mutex<BTreeSet<String>>>;

/// A call is being made here until this is dropped.
struct Mark<'a> {
    keyed: &'a Keyed,
    key: String,
}

impl<'a> Mark<'a> {
    fn new(keyed: &'a Keyed, key: &str) -> Option<Mark<'a>> {
        let key = key.to_owned();
        lock(keyed).insert(key.clone()).then(|| Mark { keyed, key })
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        lock(self.keyed).remove(&self.key);
    }
}

fn version_record(version: &str) -> ComponentRecord {
    ComponentRecord {
        version: version.to_owned(),
        ..component()
    }
}

impl Try {
    /// Asks once. Errors: the client asks again.
    pub(super) async fn ask(self, wish: Wish) -> Result<(), Problem> {
        match wish {
            Wish::Register(version) => self.register(version).await,
            Wish::Submit { tenant, key } => self.submit(tenant, key).await,
            Wish::Cancel { tenant, job } => {
                // It may have ended, and been forgotten.
                let _ = self
                    .replica
                    .propose(&tenant, Command::CancelJob { job })
                    .await;
                Ok(())
            }
            Wish::Call(key) => self.call(key).await,
            Wish::Read => self.read().await,
            Wish::Replace { old, new } => self.replace(old, new).await,
        }
    }

    async fn propose(&self, tenant: &TenantId, command: Command) -> Result<Answer, Problem> {
        self.replica.propose(tenant, command).await
    }

    async fn register(&self, version: String) -> Result<(), Problem> {
        for tenant in ["default", "other"] {
            let tenant: TenantId = tenant.parse().expect("it is a tenant's id");
            let component = version_record(&version);
            self.propose(&tenant, Command::RegisterComponent { component })
                .await?;
            let artefact = Command::RecordArtefact {
                digest: Digest::from_sha256(&[1; 32]),
                compatibility: "engine".into(),
                artefact: Digest::from_sha256(&[2; 32]),
            };
            self.propose(&tenant, artefact).await?;
        }
        self.books.lock().registered(version);
        Ok(())
    }

    async fn submit(&self, tenant: TenantId, key: String) -> Result<(), Problem> {
        let job = JobId::new(self.clock.unix_ms(), u128::from(self.number));
        let submit = Command::SubmitJob {
            job: job.clone(),
            spec: spec(),
            idempotency: Some((key.clone(), "request".into())),
        };
        if self.bug == Some(Bug::AcknowledgeEarly) {
            drop(self.replica.begin(&tenant, None, submit));
            self.books.lock().submitted(&key, job);
            return Ok(());
        }
        let Answer::Job { job, .. } = self.propose(&tenant, submit).await? else {
            panic!("a job is answered by its id");
        };
        self.books.lock().submitted(&key, job);
        Ok(())
    }

    async fn call(&self, key: String) -> Result<(), Problem> {
        let again = || Problem::new(ErrorCode::Busy, "it is being made");
        let Some(_mark) = Mark::new(&self.keyed, &key) else {
            return Err(again());
        };
        let tenant = TenantId::default_tenant();
        let by = format!("{}:{}", self.member, self.replica.incarnation());
        let begin = Command::BeginCall {
            key: key.clone(),
            request: "request".into(),
            by: by.clone(),
            ttl_s: None,
        };
        let Answer::Call { begun } = self.propose(&tenant, begin).await? else {
            panic!("a call is answered by what is known of it");
        };
        let outcome = match begun {
            Begun::Elsewhere => return Err(again()),
            Begun::Ended(outcome) => outcome.label,
            // Running, and not here: an earlier try did not end it.
            Begun::New | Begun::Running => {
                let label = format!("run {} of {key}", self.number);
                self.clock
                    .sleep(Duration::from_millis(self.number % 200))
                    .await;
                let outcome = CallOutcome {
                    label: label.clone(),
                    problem: None,
                    output: None,
                    output_bytes: 0,
                    inline: None,
                    meters: Meters::default(),
                };
                let end = Command::EndCall {
                    key: key.clone(),
                    by,
                    outcome: Some(outcome),
                };
                match self.propose(&tenant, end).await? {
                    Answer::Call {
                        begun: Begun::Ended(stands),
                    } => stands.label,
                    _ => label,
                }
            }
        };
        self.books.lock().called(&key, outcome);
        Ok(())
    }

    async fn replace(&self, old: u64, new: u64) -> Result<(), Problem> {
        membership::change(&self.replica, Wanted::Add(new)).await?;
        let votes = || {
            let members = self.replica.handle().watch_members();
            members.borrow().voters.contains(&new)
        };
        for _ in 0..40 {
            if votes() {
                break;
            }
            self.clock.sleep(Duration::from_millis(200)).await;
        }
        if !votes() {
            return Err(Problem::new(ErrorCode::Busy, "it has not caught up"));
        }
        match membership::change(&self.replica, Wanted::Remove(old)).await {
            Err(problem) if problem.code != ErrorCode::NotFound => Err(problem),
            _ => Ok(()),
        }
    }

    async fn read(&self) -> Result<(), Problem> {
        let acknowledged = self.books.lock().acknowledged.clone();
        if self.bug != Some(Bug::ReadWithoutIndex) {
            self.replica.catch_up().await?;
        }
        acknowledged.check(&self.replica.state());
        Ok(())
    }
}

/// A client, and when it asks again.
pub(super) struct Client {
    pub(super) wish: Wish,
    pub(super) state: ClientState,
}

/// The state of a client.
pub(super) enum ClientState {
    /// It asks at this time, in milliseconds.
    AsksAt(u64),
    /// Until when, and for what.
    Waits(u64, oneshot::Receiver<Result<(), Problem>>),
    Done,
}
