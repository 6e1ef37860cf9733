//! The executor child: slots, each one thread with its own runtime, fed by the agent over a socket. Beside the slots for tasks
//! there are threads for calls, one for each call that streams, threads for turns of actors, and threads for
//! planning, for
//! publishing, and one for components that describe themselves: none of these waits until a task has ended.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_core::{Digest, Epoch, ErrorCode, Problem, TenantId, lock};
use weft_engine::Executor;
use weft_protocol::frame::EncodeError;
use weft_protocol::{
    FromExecutor, InvokeRequest, MESSAGE_VERSION, PlanRequest, PublishRequest, RowsRequest,
    TaskRequest, ToExecutor, Work,
};
use weft_runtime::clock::unix_ms;
use weft_runtime::{Tasks, frames, process};
use weft_sandbox::{Engine, Role};
use weft_shard::ShardStore;
use weft_store::{Blobs, FileCache, HeldCredentials, Tier};

use crate::actors::{ActorSettings, Actors};
use crate::call_threads::CallThreads;
use crate::lease::Lease;
use crate::outward::Outward;

/// Stack of a thread that plans or runs tasks: statements make trees as deep as they nest. Only what is used is there.
const WORK_STACK_BYTES: usize = 64 << 20;

/// Work of a kind that may wait for a thread. Of tasks the controller sends little beyond the number of slots.
const QUEUE_MAX: usize = 4096;
const REPLIES_MAX: usize = 4096;
/// Threads that drive connections to stores.
const IO_THREADS: usize = 2;
/// Jobs that are planned at a time, and that are published.
const STEPS_MAX: u32 = 4;

/// Work for one of the threads.
enum Assignment {
    Task(TaskRequest),
    Plan(Box<PlanRequest>),
    Describe {
        request: u64,
        digest: Digest,
        artefact: Digest,
    },
    Publish(PublishRequest),
}

/// What goes back to the agent, with its payload.
pub(crate) type Reply = (FromExecutor, Vec<u8>);

/// Runs the child until the agent closes the socket, which is standard input.
pub fn run() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    process::expendable();
    process::more_files();
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    // A slot that panicked would be missing for ever after: the process ends instead, and the agent starts another.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if weft_engine::is_decoding() {
            return;
        }
        report(panic);
        std::process::abort();
    }));
    let socket = StdUnixStream::from(
        std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("standard input is not the agent's socket")?,
    );
    socket.set_nonblocking(true)?;
    // Slots wait for stores, whose connections are driven here.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("weft-io")
        .enable_all()
        .build()?;
    runtime.block_on(serve(socket))
}

async fn serve(socket: StdUnixStream) -> anyhow::Result<()> {
    let (reader, writer) = UnixStream::from_std(socket)?.into_split();
    let mut reader = BufReader::new(reader);
    let setup = frames::read(&mut reader).await?.map(|(setup, _)| setup);
    let own = set_up(setup)?;
    let slots = own.slots;
    let (replies, outbox) = mpsc::channel(REPLIES_MAX);
    let served = Served::start(own, &replies)?;
    replies
        .send((FromExecutor::Ready { slots }, Vec::new()))
        .await?;
    tokio::select! {
        ended = read_messages(reader, &served, &replies) => ended,
        failed = write_replies(writer, outbox) => failed,
    }?;
    // The agent is gone; tasks that still run have nobody to commit to.
    std::process::exit(0)
}

/// An executor as the agent's first message asks for it.
struct Own {
    tenant: TenantId,
    epoch: Epoch,
    executor: Executor,
    held: HeldCredentials,
    shards: ShardStore,
    slots: u32,
}

/// Makes the executor that the agent's first message asks for.
fn set_up(first: Option<ToExecutor>) -> anyhow::Result<Own> {
    let Some(ToExecutor::Setup {
        version,
        tenant,
        epoch,
        stores,
        credentials,
        cache,
        tier,
        tier_bytes,
        spill,
        slots,
        compatibility,
    }) = first
    else {
        anyhow::bail!("the agent did not say `setup` first");
    };
    check_version(version)?;
    let engine = Engine::new(Role::Executor).map_err(|fault| anyhow::anyhow!("{fault}"))?;
    let held = HeldCredentials::new(*credentials, unix_ms);
    let mut blobs = Blobs::open_held(&stores, &held)?;
    if tier_bytes > 0 {
        blobs = blobs.with_tier(Tier::new(tier, tier_bytes));
    }
    let shards = ShardStore::new(&blobs)?;
    let cache = FileCache::new(blobs, cache);
    Ok(Own {
        tenant,
        epoch,
        executor: Executor::new(engine, cache, compatibility, spill),
        held,
        shards,
        slots,
    })
}

/// Parts of the process that the agent's messages are for.
struct Served {
    executor: Executor,
    held: HeldCredentials,
    queues: Queues,
    lease: Lease,
    outward: Outward,
    actors: Actors,
}

impl Served {
    /// Starts the threads, and what serves actors.
    fn start(own: Own, replies: &mpsc::Sender<Reply>) -> std::io::Result<Self> {
        let (lease, outward) = (Lease::new(replies.clone()), Outward::new(replies.clone()));
        let settings = ActorSettings {
            tenant: own.tenant,
            epoch: own.epoch,
            store: own.shards,
            lease: lease.clone(),
            outward: outward.clone(),
            replies: replies.clone(),
            tasks: Tasks::new(CancellationToken::new()),
        };
        Ok(Self {
            queues: Queues::start(&own.executor, own.slots, &outward, replies)?,
            actors: Actors::new(settings, own.executor.clone()),
            executor: own.executor,
            held: own.held,
            lease,
            outward,
        })
    }
}

/// Fails if the agent speaks another version of the messages.
fn check_version(version: u32) -> anyhow::Result<()> {
    if version != MESSAGE_VERSION {
        anyhow::bail!(
            "the agent speaks version {version} of the messages, this executor version {MESSAGE_VERSION}: \
             both must come from one release of Weft"
        );
    }
    Ok(())
}

/// Takes the agent's messages until it closes the socket.
async fn read_messages(
    mut reader: BufReader<OwnedReadHalf>,
    served: &Served,
    replies: &mpsc::Sender<Reply>,
) -> anyhow::Result<()> {
    let Served {
        executor, queues, ..
    } = served;
    while let Some((message, payload)) = frames::read::<ToExecutor>(&mut reader).await? {
        match message {
            ToExecutor::Invoke(request) if request.stream.is_some() => {
                executor.expect_stream(request.request);
                start_stream(executor, request, replies).await?;
            }
            ToExecutor::Invoke(request) => {
                executor.expect(request.request);
                if let Some(refused) = queues.calls.call((request, payload)) {
                    replies.send(refused).await?;
                }
            }
            ToExecutor::Rows(request) => {
                executor.expect_rows(request.request);
                start_rows(executor, request, replies).await?;
            }
            ToExecutor::Input { request } => executor.input(request, payload),
            ToExecutor::OutputTaken { request, bytes } => executor.output_taken(request, bytes),
            ToExecutor::Abandon { request } => {
                executor.abandon(request);
                served.actors.abandon(request);
            }
            ToExecutor::Task(request) => {
                enqueue(&queues.tasks, Assignment::Task(request)).await?;
            }
            ToExecutor::Work(Work::Shards { shards }) => served.actors.serve(&shards),
            ToExecutor::Work(work) => take(executor, queues, work).await?,
            ToExecutor::Credentials(newer) => served.held.replace(*newer),
            ToExecutor::Actor(request) => served.actors.ask(*request, payload).await,
            ToExecutor::Lease {
                until_ns,
                confirmed,
            } => served.lease.renewed(until_ns, confirmed),
            ToExecutor::CallAnswered { call, result } => {
                served.outward.answered(call, result, payload);
            }
            ToExecutor::Setup { .. } => {}
        }
    }
    Ok(())
}

async fn write_replies(
    mut writer: OwnedWriteHalf,
    mut outbox: mpsc::Receiver<Reply>,
) -> anyhow::Result<()> {
    while let Some((reply, payload)) = outbox.recv().await {
        if let Err(error) = frames::write(&mut writer, &reply, &payload).await {
            // Whoever made it so large hears of it; the others' work goes on.
            let Some(EncodeError::TooLarge(bytes)) = error.downcast_ref() else {
                return Err(error);
            };
            frames::write(&mut writer, &reply.too_large(*bytes), &[]).await?;
        }
    }
    Ok(())
}

/// Queues of work: each kind has threads of its own.
struct Queues {
    tasks: mpsc::Sender<Assignment>,
    plans: mpsc::Sender<Assignment>,
    publishes: mpsc::Sender<Assignment>,
    describes: mpsc::Sender<Assignment>,
    calls: CallThreads,
}

impl Queues {
    /// Starts the threads.
    fn start(
        executor: &Executor,
        slots: u32,
        outward: &Outward,
        replies: &mpsc::Sender<Reply>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            tasks: workers("slot", slots, executor, replies)?,
            plans: workers("plan", slots.min(STEPS_MAX), executor, replies)?,
            publishes: workers("publish", slots.min(STEPS_MAX), executor, replies)?,
            // One: a component that sleeps while it describes itself keeps no job waiting.
            describes: workers("describe", 1, executor, replies)?,
            calls: CallThreads::new(executor, slots, outward, replies),
        })
    }
}

async fn enqueue(queue: &mpsc::Sender<Assignment>, assignment: Assignment) -> anyhow::Result<()> {
    let sent = queue.send(assignment).await;
    sent.map_err(|_| anyhow::anyhow!("the threads are gone"))
}

/// Starts threads that take work from one queue.
fn workers(
    name: &str,
    threads: u32,
    executor: &Executor,
    replies: &mpsc::Sender<Reply>,
) -> std::io::Result<mpsc::Sender<Assignment>> {
    let (work, queue) = mpsc::channel(QUEUE_MAX);
    let queue = Arc::new(Mutex::new(queue));
    for thread in 0..threads {
        let (executor, queue, replies) = (executor.clone(), Arc::clone(&queue), replies.clone());
        std::thread::Builder::new()
            .name(format!("weft-{name}-{thread}"))
            .stack_size(WORK_STACK_BYTES)
            .spawn(move || run_work(&executor, &queue, &replies))?;
    }
    Ok(work)
}

async fn take(executor: &Executor, queues: &Queues, work: Work) -> anyhow::Result<()> {
    let (queue, assignment) = match work {
        Work::Stage(context) => {
            executor.open_stage(*context);
            return Ok(());
        }
        Work::Forget { job } => {
            executor.forget(&job);
            return Ok(());
        }
        Work::Describe {
            request,
            digest,
            artefact,
        } => {
            let assignment = Assignment::Describe {
                request,
                digest,
                artefact,
            };
            (&queues.describes, assignment)
        }
        Work::Plan(request) => {
            executor.expect_plan(&request.job);
            (&queues.plans, Assignment::Plan(request))
        }
        Work::Publish(request) => (&queues.publishes, Assignment::Publish(request)),
        // They are taken where they come in.
        Work::Shards { .. } => return Ok(()),
    };
    enqueue(queue, assignment).await
}

/// A thread with a runtime: one piece of work at a time.
fn run_work(
    executor: &Executor,
    queue: &Mutex<mpsc::Receiver<Assignment>>,
    replies: &mpsc::Sender<Reply>,
) {
    let runtime = slot_runtime();
    loop {
        let assignment = lock(queue).blocking_recv();
        let Some(assignment) = assignment else { return };
        let reply = runtime.block_on(perform(executor, assignment));
        if replies.blocking_send((reply, Vec::new())).is_err() {
            return;
        }
    }
}

/// Runtime of a thread that does one thing at a time.
pub(crate) fn slot_runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(10))
        .build();
    runtime.expect("a runtime of one thread starts wherever the process did")
}

/// Starts a thread for an invocation that streams: it waits for its client, and must keep no slot while it does.
async fn start_stream(
    executor: &Executor,
    request: Box<InvokeRequest>,
    replies: &mpsc::Sender<Reply>,
) -> anyhow::Result<()> {
    let started = {
        let (executor, request, replies) = (executor.clone(), request.clone(), replies.clone());
        let thread = std::thread::Builder::new().name("weft-stream".into());
        thread.spawn(move || {
            let reply = slot_runtime().block_on(executor.stream(&request, replies.clone()));
            // Where nobody reads replies any more, the process ends.
            let _ = replies.blocking_send((FromExecutor::Invoked(Box::new(reply)), Vec::new()));
        })
    };
    if let Err(error) = started {
        let detail = format!("no thread can be started for the call: {error}; try again");
        let reply = executor.refuse(&request, Problem::new(ErrorCode::Busy, detail));
        let reply = FromExecutor::Invoked(Box::new(reply));
        replies.send((reply, Vec::new())).await?;
    }
    Ok(())
}

/// Starts a thread for rows of an output: it waits for its client.
async fn start_rows(
    executor: &Executor,
    request: Box<RowsRequest>,
    replies: &mpsc::Sender<Reply>,
) -> anyhow::Result<()> {
    let number = request.request;
    let sent = move |result| FromExecutor::RowsSent {
        request: number,
        result,
    };
    let started = {
        let (executor, replies) = (executor.clone(), replies.clone());
        let thread = std::thread::Builder::new().name("weft-rows".into());
        thread.spawn(move || {
            let result = slot_runtime().block_on(executor.rows(&request, replies.clone()));
            // Where nobody reads replies any more, the process ends.
            let _ = replies.blocking_send((sent(result), Vec::new()));
        })
    };
    if let Err(error) = started {
        executor.forget_rows(number);
        let detail = format!("no thread can be started for the rows: {error}; try again");
        let problem = Problem::new(ErrorCode::Busy, detail);
        replies.send((sent(Err(problem)), Vec::new())).await?;
    }
    Ok(())
}

async fn perform(executor: &Executor, assignment: Assignment) -> FromExecutor {
    match assignment {
        Assignment::Task(request) => FromExecutor::Task(Box::new(executor.run(request).await)),
        Assignment::Plan(request) => FromExecutor::Planned(Box::new(executor.plan(&request).await)),
        Assignment::Describe {
            request,
            digest,
            artefact,
        } => FromExecutor::Described(executor.describe(request, &digest, &artefact).await),
        Assignment::Publish(request) => {
            let job = request.job.clone();
            FromExecutor::Published {
                job,
                result: executor.publish(request).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::Stores;

    use super::*;

    fn setup(version: u32) -> ToExecutor {
        ToExecutor::Setup {
            version,
            tenant: TenantId::default_tenant(),
            epoch: Epoch(1),
            stores: Box::new(Stores::folder("/nowhere/store".as_ref())),
            credentials: Box::default(),
            cache: "/nowhere/cache".into(),
            tier: "/nowhere/tier".into(),
            tier_bytes: 1,
            spill: "/nowhere/spill".into(),
            slots: 1,
            compatibility: "0".into(),
        }
    }

    #[track_caller]
    fn check(first: Option<ToExecutor>, parts: &[&str]) {
        let Err(error) = set_up(first) else {
            panic!("an executor was made");
        };
        for part in parts {
            assert!(error.to_string().contains(part), "`{error}` lacks `{part}`");
        }
    }

    #[test]
    fn agents_of_other_versions_are_refused() {
        let ours = format!("version {MESSAGE_VERSION}");
        for other in [MESSAGE_VERSION - 1, MESSAGE_VERSION + 1] {
            check(Some(setup(other)), &[&format!("version {other}"), &ours]);
        }
        check_version(MESSAGE_VERSION).expect("it is ours");
        check(None, &["did not say `setup` first"]);
        check(Some(ToExecutor::Abandon { request: 1 }), &["`setup` first"]);
    }
}
