//! From an upload to a registered component: stored, compiled once however many ask, described, replicated.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Semaphore;
use weft_control::{Answer, Command, ComponentRecord, Job};
use weft_core::Description;
use weft_core::{Digest, ErrorCode, JobId, Problem, TenantId, lock};
use weft_protocol::{PlanReply, PlanRequest, artefact_key, component_key};

use crate::nodes::Nodes;
use crate::replica::Replica;
use crate::scheduler::{CheckAnswer, Request, Requests};
use weft_runtime::clock::unix_ms;
use weft_runtime::link::Compiled;
use weft_store::Blobs;

/// Registrations at a time.
const REGISTRATIONS_MAX: usize = 256;
/// Artefacts that are remembered to be in a bucket.
const STORED_MAX: usize = 16_384;
/// Checks of jobs under way.
const CHECKS_MAX: usize = 16;

/// What compiling and describing a component told.
#[derive(Clone)]
struct Known {
    imports: Vec<String>,
    description: Description,
}

type Flight = Arc<tokio::sync::Mutex<Option<Known>>>;

/// Registers components.
pub(crate) struct Components {
    blobs: Blobs,
    nodes: Nodes,
    replica: Replica,
    scheduler: Requests,
    /// Registrations under way, whether their clients wait or have gone.
    permits: Semaphore,
    /// Checks of jobs under way.
    checks: Arc<Semaphore>,
    /// Keys of artefacts that were seen in a bucket.
    stored: Mutex<HashSet<String>>,
    /// One entry for each digest that somebody is waiting for.
    flights: Mutex<HashMap<Digest, Flight>>,
}

/// Has the executor forget a check when it is dropped.
struct GiveUp<'a> {
    job: JobId,
    scheduler: &'a Requests,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        // Where the queue is full the check runs to its end, and nobody hears of it.
        self.scheduler.tell(Request::Forget {
            job: self.job.clone(),
        });
    }
}

impl Components {
    pub(crate) fn new(
        blobs: &Blobs,
        nodes: &Nodes,
        replica: &Replica,
        scheduler: &Requests,
    ) -> Self {
        Self {
            blobs: blobs.clone(),
            nodes: nodes.clone(),
            replica: replica.clone(),
            scheduler: scheduler.clone(),
            permits: Semaphore::new(REGISTRATIONS_MAX),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            stored: Mutex::default(),
            flights: Mutex::default(),
        }
    }

    /// Registers the bytes at `upload`, a synced file that is the caller's own. Returns the record, and whether it is new.
    ///
    /// Not cancel-safe: half way, bytes are stored that nothing refers to.
    pub(crate) async fn register(
        &self,
        tenant: &TenantId,
        upload: &std::path::Path,
        digest: Digest,
        size_bytes: u64,
    ) -> Result<(ComponentRecord, bool), Problem> {
        let _permit = self.permits.try_acquire().map_err(|_| {
            let detail = format!("{REGISTRATIONS_MAX} components are being registered; try again");
            Problem::new(ErrorCode::Busy, detail)
        })?;
        let known = self.known_record(tenant, &digest);
        if let Some(record) = known {
            return Ok((record, false));
        }
        let flight = self.board(&digest);
        let mut slot = flight.lock().await;
        let result = self
            .register_first(tenant, upload, &digest, size_bytes, &mut slot)
            .await;
        if result.is_err() && !self.is_held(&digest) {
            *slot = None;
        }
        // Of a group, another controller may be registering the same bytes: the sweep removes them.
        if result.is_err() && self.replica.peers().is_none() && !self.is_held(&digest) {
            // Nobody refers to the bytes, and the sweep removes what is left. Later uploads of them start afresh.
            let _ = self.blobs.delete(&component_key(&digest)).await;
            if let Ok(compatibility) = self.nodes.compatibility() {
                let artefact = artefact_key(&digest, &compatibility);
                let _ = self.blobs.delete(&artefact).await;
            }
        }
        drop(slot);
        self.leave(&digest, &flight);
        result
    }

    fn board(&self, digest: &Digest) -> Flight {
        Arc::clone(self.flights().entry(digest.clone()).or_default())
    }

    fn leave(&self, digest: &Digest, flight: &Flight) {
        let mut flights = self.flights();
        // The table's and ours: nobody else waits.
        if Arc::strong_count(flight) == 2 {
            flights.remove(digest);
        }
    }

    /// Components that somebody is about to register.
    pub(crate) fn in_flight(&self) -> Vec<Digest> {
        self.flights().keys().cloned().collect()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Digest, Flight>> {
        lock(&self.flights)
    }

    fn known_record(&self, tenant: &TenantId, digest: &Digest) -> Option<ComponentRecord> {
        self.replica
            .state()
            .tenant(tenant)?
            .catalog
            .iter()
            .find(|record| record.digest == *digest)
            .cloned()
    }

    fn is_held(&self, digest: &Digest) -> bool {
        let pinned = |job: &Job| {
            let mut functions = job.functions.iter();
            functions.any(|function| function.digest == *digest)
        };
        let state = self.replica.state();
        let mut tenants = state.tenants.values();
        tenants.any(|tenant| tenant.catalog.holds(digest) || tenant.jobs.values().any(pinned))
    }

    async fn register_first(
        &self,
        tenant: &TenantId,
        upload: &std::path::Path,
        digest: &Digest,
        size_bytes: u64,
        slot: &mut Option<Known>,
    ) -> Result<(ComponentRecord, bool), Problem> {
        if let Some(record) = self.known_record(tenant, digest) {
            return Ok((record, false));
        }
        let known = match slot {
            Some(known) => known.clone(),
            None => self.examine(tenant, upload, digest).await?,
        };
        *slot = Some(known.clone());
        let Description {
            name,
            version,
            functions,
        } = known.description;
        let component = ComponentRecord {
            name,
            version,
            digest: digest.clone(),
            size_bytes,
            created_ms: unix_ms(),
            functions,
            imports: known.imports,
        };
        weft_failpoint::hit("register");
        match self
            .replica
            .propose(tenant, Command::RegisterComponent { component })
            .await?
        {
            Answer::Component { component, new } => Ok((component, new)),
            other => Err(Problem::new(
                ErrorCode::Internal,
                format!("registering answered with {other:?}"),
            )),
        }
    }

    /// Stores, compiles and describes.
    async fn examine(
        &self,
        tenant: &TenantId,
        upload: &std::path::Path,
        digest: &Digest,
    ) -> Result<Known, Problem> {
        let stored = self.blobs.take_file(upload, &component_key(digest)).await;
        stored.map_err(|error| {
            let detail = format!("the component cannot be stored: {}", error.problem().detail);
            Problem::new(ErrorCode::StoreUnavailable, detail)
        })?;
        weft_failpoint::hit("upload-stored");
        let (compatibility, compiled) = self.compile(tenant, digest).await?;
        let Compiled { imports, artefact } = compiled;
        weft_failpoint::hit("compiled");
        let described = self
            .scheduler
            .describe(tenant, digest, compatibility, artefact);
        let description = described.await?;
        Ok(Known {
            imports,
            description,
        })
    }

    /// Compiles a component on a node, and records the digest of its artefact. Returns the name of the
    /// engine that takes it, too.
    async fn compile(
        &self,
        tenant: &TenantId,
        digest: &Digest,
    ) -> Result<(String, Compiled), Problem> {
        let node = self.nodes.for_compilation()?;
        let compiled = node.worker.compilers.compile(digest).await?;
        let compatibility = node.worker.compilers.compatibility().to_owned();
        let record = Command::RecordArtefact {
            digest: digest.clone(),
            compatibility: compatibility.clone(),
            artefact: compiled.artefact.clone(),
        };
        self.replica.propose(tenant, record).await?;
        Ok((compatibility, compiled))
    }

    /// Plans a job without running it. Errors: what is wrong with it.
    pub(crate) async fn check(
        &self,
        tenant: &TenantId,
        request: PlanRequest,
    ) -> Result<PlanReply, Problem> {
        let functions = request.functions.iter();
        let digests: Vec<Digest> = functions.map(|function| function.digest.clone()).collect();
        self.ensure_artefacts(tenant, &digests).await?;
        self.plan_only(tenant, request).await
    }

    /// Plans a job whose components have artefacts, without running it.
    pub(crate) async fn plan_only(
        &self,
        tenant: &TenantId,
        request: PlanRequest,
    ) -> Result<PlanReply, Problem> {
        let checks = Arc::clone(&self.checks);
        let permit = checks.try_acquire_owned().map_err(|_| {
            let detail = format!("{CHECKS_MAX} checks are under way; try again");
            Problem::new(ErrorCode::Busy, detail)
        })?;
        // A check whose client goes away is given up.
        let _given_up = GiveUp {
            job: request.job.clone(),
            scheduler: &self.scheduler,
        };
        let request = |answer| Request::Check {
            tenant: tenant.clone(),
            request: Box::new(request),
            answer: CheckAnswer {
                to: answer,
                _permit: permit,
            },
        };
        self.scheduler.ask(request).await
    }

    /// Makes sure that the artefacts of a job's components are there for this engine: after an upgrade
    /// they are compiled anew.
    pub(crate) async fn ensure_artefacts(
        &self,
        tenant: &TenantId,
        digests: &[Digest],
    ) -> Result<(), Problem> {
        for digest in digests {
            self.artefact(tenant, digest).await?;
        }
        Ok(())
    }

    /// The digest of a component's artefact for this engine, which is there.
    pub(crate) async fn artefact(
        &self,
        tenant: &TenantId,
        digest: &Digest,
    ) -> Result<Digest, Problem> {
        if let Some(artefact) = self.known_artefact(tenant, digest).await? {
            return Ok(artefact);
        }
        let flight = self.board(digest);
        let slot = flight.lock().await;
        // Whoever had the flight before may have done it.
        let artefact = match self.known_artefact(tenant, digest).await {
            Ok(Some(artefact)) => Ok(artefact),
            Err(problem) => Err(problem),
            Ok(None) => {
                let compiled = self.compile(tenant, digest).await;
                compiled.map(|(_, compiled)| compiled.artefact)
            }
        };
        drop(slot);
        self.leave(digest, &flight);
        artefact
    }

    /// The digest of an artefact that was recorded and is in the store. Errors: the store cannot be asked.
    async fn known_artefact(
        &self,
        tenant: &TenantId,
        digest: &Digest,
    ) -> Result<Option<Digest>, Problem> {
        let Ok(engine) = self.nodes.compatibility() else {
            return Ok(None);
        };
        let recorded = self
            .replica
            .state()
            .artefact(tenant, digest, &engine)
            .cloned();
        if recorded.is_none() {
            return Ok(None);
        }
        let is_there = self.is_stored(artefact_key(digest, &engine)).await?;
        Ok(recorded.filter(|_| is_there))
    }

    /// Returns whether an artefact is in the store. A bucket is asked once: invocations do not wait for it.
    async fn is_stored(&self, key: String) -> Result<bool, Problem> {
        if let Some(folder) = self.blobs.folder() {
            return Ok(folder.join(key).exists());
        }
        if lock(&self.stored).contains(&key) {
            return Ok(true);
        }
        let is_there = self.blobs.exists(&key).await;
        let is_there = is_there.map_err(|error| error.problem())?;
        if is_there {
            let mut stored = lock(&self.stored);
            if stored.len() >= STORED_MAX {
                stored.clear();
            }
            stored.insert(key);
        }
        Ok(is_there)
    }
}
