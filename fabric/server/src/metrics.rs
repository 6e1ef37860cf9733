//! What the server counts and measures, for `/metrics`: what is slow, full, waiting, failing, costing.
//!
//! Every label takes its values from a closed list, so that the number of series is bounded whatever clients send.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use weft_control::{Job, JobState, Outcome};
use weft_core::{ErrorCode, FunctionUsage, LimitKind, Meters, Problem};

/// Requests by route, method and status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// The pattern, not the path.
    pub(crate) route: String,
    pub(crate) method: String,
    pub(crate) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub(crate) route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabels {
    pub(crate) status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub(crate) outcome: &'static str,
}

/// `code` of the closed list of problems, or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CodeLabels {
    pub(crate) code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitLabels {
    pub(crate) limit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AccountLabels {
    /// Who bears it: `billed` or `platform`.
    pub(crate) account: &'static str,
}

/// All metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) request_seconds: Family<RouteLabels, Histogram>,
    pub(crate) connections: Gauge,
    pub(crate) jobs: Family<StatusLabels, Gauge>,
    jobs_ended: Family<OutcomeLabels, Counter>,
    job_failures: Family<CodeLabels, Counter>,
    pub(crate) tasks: Family<OutcomeLabels, Counter>,
    pub(crate) task_failures: Family<CodeLabels, Counter>,
    pub(crate) task_seconds: Histogram,
    pub(crate) tasks_waiting: Gauge,
    pub(crate) tasks_running: Gauge,
    pub(crate) slots: Gauge,
    pub(crate) steps_waiting: Gauge,
    pub(crate) executor_ready: Gauge,
    pub(crate) executors_started: Counter,
    pub(crate) executors_lost: Counter,
    pub(crate) invocations: Family<CodeLabels, Counter>,
    pub(crate) invocation_seconds: Histogram,
    pub(crate) invocations_under_way: Gauge,
    pub(crate) invocations_streaming: Gauge,
    pub(crate) input_held: Gauge,
    pub(crate) output_held: Gauge,
    limits_hit: Family<LimitLabels, Counter>,
    pub(crate) log_lines_dropped: Counter,
    cpu_nanoseconds: Family<AccountLabels, Counter>,
    shuffle_bytes: Counter,
    pub(crate) compilations: Counter,
    pub(crate) components: Gauge,
    pub(crate) free_bytes: Gauge<f64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// From half a millisecond to a bit over two minutes.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 19))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weft"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            connections: Gauge::default(),
            jobs: Family::default(),
            jobs_ended: Family::default(),
            job_failures: Family::default(),
            tasks: Family::default(),
            task_failures: Family::default(),
            task_seconds: seconds(),
            tasks_waiting: Gauge::default(),
            tasks_running: Gauge::default(),
            slots: Gauge::default(),
            steps_waiting: Gauge::default(),
            executor_ready: Gauge::default(),
            executors_started: Counter::default(),
            executors_lost: Counter::default(),
            invocations: Family::default(),
            invocation_seconds: seconds(),
            invocations_under_way: Gauge::default(),
            invocations_streaming: Gauge::default(),
            input_held: Gauge::default(),
            output_held: Gauge::default(),
            limits_hit: Family::default(),
            log_lines_dropped: Counter::default(),
            cpu_nanoseconds: Family::default(),
            shuffle_bytes: Counter::default(),
            compilations: Counter::default(),
            components: Gauge::default(),
            free_bytes: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("http_requests", "Requests answered", self.requests.clone());
        r.register_with_unit(
            "http_request",
            "Time to the head of the answer",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        r.register(
            "http_connections",
            "Connections that are open",
            self.connections.clone(),
        );
        r.register(
            "jobs",
            "Jobs that have not been archived, by status",
            self.jobs.clone(),
        );
        r.register(
            "jobs_ended",
            "Jobs that have ended, by outcome",
            self.jobs_ended.clone(),
        );
        r.register(
            "job_failures",
            "Jobs that failed, by code",
            self.job_failures.clone(),
        );
        r.register("tasks", "Attempts of tasks that ended", self.tasks.clone());
        r.register(
            "task_failures",
            "Attempts of tasks that failed, by code",
            self.task_failures.clone(),
        );
        r.register_with_unit(
            "task",
            "Wall time of committed attempts",
            Unit::Seconds,
            self.task_seconds.clone(),
        );
        r.register(
            "tasks_waiting",
            "Tasks that wait for a slot",
            self.tasks_waiting.clone(),
        );
        r.register(
            "tasks_running",
            "Tasks that were sent to the executor",
            self.tasks_running.clone(),
        );
        r.register("slots", "Slots of the executor", self.slots.clone());
        r.register(
            "steps_waiting",
            "Plannings, checks, descriptions and publications that wait for the executor",
            self.steps_waiting.clone(),
        );
        r.register(
            "executor_ready",
            "1 while the executor takes work",
            self.executor_ready.clone(),
        );
        r.register(
            "executors_started",
            "Executors started",
            self.executors_started.clone(),
        );
        r.register(
            "executors_lost",
            "Executors that ended while they were needed",
            self.executors_lost.clone(),
        );
        r.register(
            "invocations",
            "Invocations answered, by code; `none` for those that went well",
            self.invocations.clone(),
        );
        r.register_with_unit(
            "invocation",
            "Time from admission to the answer",
            Unit::Seconds,
            self.invocation_seconds.clone(),
        );
        r.register(
            "invocations_streaming",
            "Invocations of map functions that run",
            self.invocations_streaming.clone(),
        );
        r.register(
            "invocations_under_way",
            "Invocations that run or wait",
            self.invocations_under_way.clone(),
        );
        r.register_with_unit(
            "invocation_input_held",
            "Inputs of invocations that come in, wait or run",
            Unit::Bytes,
            self.input_held.clone(),
        );
        r.register_with_unit(
            "invocation_output_held",
            "Room for outputs of invocations that run, and outputs that their clients have not taken",
            Unit::Bytes,
            self.output_held.clone(),
        );
        r.register(
            "limits_hit",
            "Tasks, jobs and invocations that were stopped at a limit",
            self.limits_hit.clone(),
        );
        r.register(
            "log_lines_dropped",
            "Lines of tasks' logs above their bound",
            self.log_lines_dropped.clone(),
        );
        r.register(
            "cpu_nanoseconds",
            "CPU time of tasks and invocations, guests and host alike, by who bears it",
            self.cpu_nanoseconds.clone(),
        );
        r.register_with_unit(
            "shuffle_written",
            "What tasks wrote to shuffle objects",
            Unit::Bytes,
            self.shuffle_bytes.clone(),
        );
        r.register(
            "compilations",
            "Compilations of components",
            self.compilations.clone(),
        );
        r.register(
            "components",
            "Versions of components in the catalog",
            self.components.clone(),
        );
        r.register_with_unit(
            "data_free",
            "Free space where the data folder lies",
            Unit::Bytes,
            self.free_bytes.clone(),
        );
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Takes note of what was used, by whose account it goes to.
    pub(crate) fn used(&self, usage: &[FunctionUsage]) {
        for one in usage {
            self.cpu("billed", &one.billed);
            self.cpu("platform", &one.platform);
            self.shuffle_bytes.inc_by(one.billed.shuffle_bytes_written);
        }
    }

    /// Takes note of what an attempt used that nobody is billed for: the platform's fault, or its second one.
    pub(crate) fn waived(&self, usage: &[FunctionUsage]) {
        for one in usage {
            self.cpu("platform", &one.billed);
            self.cpu("platform", &one.platform);
            self.shuffle_bytes.inc_by(one.billed.shuffle_bytes_written);
        }
    }

    fn cpu(&self, account: &'static str, meters: &Meters) {
        let ns = meters.guest_cpu_ns.saturating_add(meters.native_cpu_ns);
        let labels = AccountLabels { account };
        self.cpu_nanoseconds.get_or_create(&labels).inc_by(ns);
    }

    /// Takes note of the limit that a problem tells of. Executors tell of them, too: what they say is no label.
    pub(crate) fn limit_hit(&self, problem: &Problem) {
        let Some(limit) = &problem.limit else { return };
        let known = LimitKind::ALL
            .iter()
            .map(LimitKind::to_string)
            .find(|known| known == limit);
        let limit = known.unwrap_or_else(|| "other".into());
        self.limits_hit.get_or_create(&LimitLabels { limit }).inc();
    }

    pub(crate) fn invoked(&self, problem: Option<&Problem>, took: Duration) {
        if let Some(problem) = problem {
            self.limit_hit(problem);
        }
        let code = code(problem.map(|problem| problem.code));
        self.invocations.get_or_create(&CodeLabels { code }).inc();
        self.invocation_seconds.observe(took.as_secs_f64());
    }

    /// Takes note of a job that has ended, and of which nothing runs any more.
    pub(crate) fn job_ended(&self, job: &Job) {
        let JobState::Ending(ending) = &job.state else {
            return;
        };
        let outcome = match ending.outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        };
        let labels = OutcomeLabels { outcome };
        self.jobs_ended.get_or_create(&labels).inc();
        if let Some(problem) = &ending.problem {
            let code = code(Some(problem.code));
            self.job_failures.get_or_create(&CodeLabels { code }).inc();
        }
    }

    pub(crate) fn task_failed(&self, problem: &Problem) {
        self.limit_hit(problem);
        let code = code(Some(problem.code));
        self.task_failures.get_or_create(&CodeLabels { code }).inc();
    }
}

fn code(code: Option<ErrorCode>) -> String {
    let text = code.and_then(|code| serde_json::to_value(code).ok());
    text.and_then(|text| text.as_str().map(str::to_owned))
        .unwrap_or_else(|| "none".into())
}

/// Counts something for as long as it is alive.
pub(crate) struct UnderWay<'a>(&'a Gauge);

impl<'a> UnderWay<'a> {
    pub(crate) fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SOURCE: &str = include_str!("metrics.rs");
    const API: &str = include_str!("../../API.md");

    /// The words after each `before`, as far as they are names.
    fn names<'a>(text: &'a str, before: &'a str) -> BTreeSet<&'a str> {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let behind = text.split(before).skip(1);
        let names = behind.map(|text| text.split(|c| !is_name(c)).next().unwrap_or(""));
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Whoever copies a query from the page finds what it asks for, and what there is to ask for is on the page.
    #[test]
    fn metrics_are_those_of_the_page() {
        let code = SOURCE.split("#[cfg(test)]").next().expect("a part");
        let code = code.split_whitespace().collect::<String>();
        let registered: BTreeSet<&str> = names(&code, "register(\"")
            .union(&names(&code, "register_with_unit(\""))
            .copied()
            .collect();
        assert!(registered.len() > 20, "{registered:?}");
        let on_page = names(API, "weft_");
        let units = ["", "_total", "_seconds", "_bytes", "_bytes_total"];
        let is_named = |name: &str| {
            units
                .iter()
                .any(|unit| on_page.contains(&*format!("{name}{unit}")))
        };
        let unnamed: Vec<_> = registered.iter().filter(|name| !is_named(name)).collect();
        assert!(unnamed.is_empty(), "not on the page: {unnamed:?}");
        let is_there = |name: &&&str| {
            let mut plain = units.iter().filter_map(|unit| name.strip_suffix(unit));
            plain.any(|name| registered.contains(name))
        };
        let unknown: Vec<_> = on_page.iter().filter(|name| !is_there(name)).collect();
        assert!(unknown.is_empty(), "only on the page: {unknown:?}");
        for account in ["billed", "platform"] {
            assert!(API.contains(&format!("`{account}`")), "{account}");
        }
    }

    #[test]
    fn what_is_waived_goes_to_the_platforms_account() {
        let meters = |guest_cpu_ns| Meters {
            guest_cpu_ns,
            shuffle_bytes_written: 1,
            ..Meters::default()
        };
        let usage = FunctionUsage {
            billed: meters(5),
            platform: meters(70),
            ..FunctionUsage::default()
        };
        let metrics = Metrics::new();
        metrics.used(std::slice::from_ref(&usage));
        metrics.waived(&[usage]);
        let text = metrics.text().expect("it is written");
        for line in [
            "weft_cpu_nanoseconds_total{account=\"billed\"} 5",
            "weft_cpu_nanoseconds_total{account=\"platform\"} 145",
            "weft_shuffle_written_bytes_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
