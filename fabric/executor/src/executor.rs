//! The executor child: slots, each one thread with its own runtime, fed by the agent over a socket. Beside the slots for tasks
//! there are threads for calls, one for each call that streams, and threads for planning, for publishing, and one for components
//! that describe themselves: none of these waits until a task has ended.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use weft_core::{ErrorCode, Problem};
use weft_engine::Executor;
use weft_protocol::frame::EncodeError;
use weft_protocol::{
    FromExecutor, InvokeRequest, PlanRequest, PublishRequest, TaskRequest, ToExecutor,
};
use weft_runtime::{frames, process};
use weft_sandbox::{Engine, Role};
use weft_store::Blobs;

/// Work of a kind that may wait for a thread. Of tasks the controller sends little beyond the number of slots.
const QUEUE_MAX: usize = 4096;
const REPLIES_MAX: usize = 4096;
/// Jobs that are planned at a time, and that are published.
const STEPS_MAX: u32 = 4;

/// What a thread does.
enum Work {
    Task(TaskRequest),
    Plan(Box<PlanRequest>),
    Describe {
        request: u64,
        digest: weft_core::Digest,
    },
    Publish(PublishRequest),
}

/// An invocation with its input.
type Call = (Box<InvokeRequest>, Vec<u8>);
/// What goes back to the agent, with its payload.
type Reply = (FromExecutor, Vec<u8>);

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(socket))
}

async fn serve(socket: StdUnixStream) -> anyhow::Result<()> {
    let (reader, mut writer) = UnixStream::from_std(socket)?.into_split();
    let mut reader = BufReader::new(reader);
    let Some((
        ToExecutor::Setup {
            store,
            spill,
            slots,
            compatibility,
        },
        _,
    )) = frames::read(&mut reader).await?
    else {
        anyhow::bail!("the agent did not say `setup` first");
    };
    let engine = Engine::new(Role::Executor).map_err(|fault| anyhow::anyhow!("{fault}"))?;
    let executor = Executor::new(engine, Blobs::local(&store)?, compatibility, spill);
    let (replies, mut outbox) = mpsc::channel(REPLIES_MAX);
    let work = Queues {
        tasks: workers("slot", slots, &executor, &replies)?,
        plans: workers("plan", slots.min(STEPS_MAX), &executor, &replies)?,
        publishes: workers("publish", slots.min(STEPS_MAX), &executor, &replies)?,
        // One: a component that sleeps while it describes itself keeps no job waiting.
        describes: workers("describe", 1, &executor, &replies)?,
    };
    let (calls, called) = mpsc::channel(QUEUE_MAX);
    let called = Arc::new(Mutex::new(called));
    for slot in 0..slots {
        let (executor, called, replies) = (executor.clone(), Arc::clone(&called), replies.clone());
        std::thread::Builder::new()
            .name(format!("weft-call-{slot}"))
            .spawn(move || run_calls(&executor, &called, &replies))?;
    }
    replies
        .send((FromExecutor::Ready { slots }, Vec::new()))
        .await?;
    let reading = async {
        while let Some((message, payload)) = frames::read::<ToExecutor>(&mut reader).await? {
            match message {
                ToExecutor::Invoke(request) if request.stream.is_some() => {
                    executor.expect_stream(request.request);
                    start_stream(&executor, request, &replies).await?;
                }
                ToExecutor::Input { request } => executor.input(request, payload),
                ToExecutor::OutputTaken { request, bytes } => executor.output_taken(request, bytes),
                ToExecutor::Invoke(request) => {
                    executor.expect(request.request);
                    let sent = calls.send((request, payload)).await;
                    sent.map_err(|_| anyhow::anyhow!("the slots are gone"))?;
                }
                ToExecutor::Abandon { request } => executor.abandon(request),
                message => take(&executor, &work, message).await?,
            }
        }
        anyhow::Ok(())
    };
    let writing = async {
        while let Some((reply, payload)) = outbox.recv().await {
            if let Err(error) = frames::write(&mut writer, &reply, &payload).await {
                // Whoever made it so large hears of it; the others' work goes on.
                let Some(EncodeError::TooLarge(bytes)) = error.downcast_ref() else {
                    return Err(error);
                };
                frames::write(&mut writer, &reply.too_large(*bytes), &[]).await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        failed = writing => failed,
    }?;
    // The agent is gone; tasks that still run have nobody to commit to.
    std::process::exit(0)
}

/// Work of each kind has threads of its own.
struct Queues {
    tasks: mpsc::Sender<Work>,
    plans: mpsc::Sender<Work>,
    publishes: mpsc::Sender<Work>,
    describes: mpsc::Sender<Work>,
}

/// Starts threads that take work from one queue.
fn workers(
    name: &str,
    threads: u32,
    executor: &Executor,
    replies: &mpsc::Sender<Reply>,
) -> std::io::Result<mpsc::Sender<Work>> {
    let (work, queue) = mpsc::channel(QUEUE_MAX);
    let queue = Arc::new(Mutex::new(queue));
    for thread in 0..threads {
        let (executor, queue, replies) = (executor.clone(), Arc::clone(&queue), replies.clone());
        std::thread::Builder::new()
            .name(format!("weft-{name}-{thread}"))
            .spawn(move || run_work(&executor, &queue, &replies))?;
    }
    Ok(work)
}

async fn take(executor: &Executor, work: &Queues, message: ToExecutor) -> anyhow::Result<()> {
    let (queue, one) = match message {
        ToExecutor::Setup { .. }
        | ToExecutor::Invoke(_)
        | ToExecutor::Input { .. }
        | ToExecutor::OutputTaken { .. }
        | ToExecutor::Abandon { .. } => return Ok(()),
        ToExecutor::Stage(context) => {
            executor.open_stage(*context);
            return Ok(());
        }
        ToExecutor::Forget { job } => {
            executor.forget(&job);
            return Ok(());
        }
        ToExecutor::Describe { request, digest } => {
            (&work.describes, Work::Describe { request, digest })
        }
        ToExecutor::Plan(request) => {
            executor.expect_plan(&request.job);
            (&work.plans, Work::Plan(request))
        }
        ToExecutor::Task(request) => (&work.tasks, Work::Task(request)),
        ToExecutor::Publish(request) => (&work.publishes, Work::Publish(request)),
    };
    queue
        .send(one)
        .await
        .map_err(|_| anyhow::anyhow!("the threads are gone"))
}

/// A thread with a runtime: one piece of work at a time.
fn run_work(
    executor: &Executor,
    queue: &Mutex<mpsc::Receiver<Work>>,
    replies: &mpsc::Sender<Reply>,
) {
    let runtime = slot_runtime();
    loop {
        let work = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(work) = work else { return };
        let reply = runtime.block_on(perform(executor, work));
        if replies.blocking_send((reply, Vec::new())).is_err() {
            return;
        }
    }
}

fn slot_runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(10))
        .build();
    runtime.expect("a runtime of one thread starts wherever the process did")
}

/// One slot for invocations: beside those for tasks, so that a call need not wait until a task has ended.
fn run_calls(
    executor: &Executor,
    queue: &Mutex<mpsc::Receiver<Call>>,
    replies: &mpsc::Sender<Reply>,
) {
    let runtime = slot_runtime();
    loop {
        let call = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some((request, input)) = call else { return };
        let (reply, output) = runtime.block_on(executor.invoke(&request, &input));
        if replies
            .blocking_send((FromExecutor::Invoked(Box::new(reply)), output))
            .is_err()
        {
            return;
        }
    }
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
        let reply = executor.refuse_stream(&request, Problem::new(ErrorCode::Busy, detail));
        let reply = FromExecutor::Invoked(Box::new(reply));
        replies.send((reply, Vec::new())).await?;
    }
    Ok(())
}

async fn perform(executor: &Executor, work: Work) -> FromExecutor {
    match work {
        Work::Task(request) => FromExecutor::Task(Box::new(executor.run(request).await)),
        Work::Plan(request) => FromExecutor::Planned(executor.plan(&request).await),
        Work::Describe { request, digest } => {
            FromExecutor::Described(executor.describe(request, &digest).await)
        }
        Work::Publish(request) => {
            let job = request.job.clone();
            FromExecutor::Published {
                job,
                result: executor.publish(request).await,
            }
        }
    }
}
