//! Metrics of the controller, for `/metrics`: what is slow, full, waiting, failing, costing.
//!
//! Every label takes its values from a closed list, or from a list with a bound, so that the number
//! of series is bounded whatever clients send.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Unit};
use weft_control::{Job, JobState, Outcome};
use weft_core::{FunctionUsage, LimitKind, Meters, Problem, lock};
use weft_telemetry::{
    AccountLabels, CodeLabels, FunctionLabels, KindLabels, LimitLabels, Registry, seconds,
};
pub(crate) use weft_telemetry::{OutcomeLabels, RequestLabels, RouteLabels, StatusLabels};

/// Functions with a label of their own: the first ones that are invoked. Each is a histogram of some
/// twenty series. Functions that come later share the label `other`.
const MAX_FUNCTION_LABELS: usize = 100;

/// All metrics of one controller.
#[derive(Debug)]
pub(crate) struct Metrics {
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
    invocation_seconds: Family<FunctionLabels, Histogram>,
    labelled_functions: LabelledFunctions,
    pub(crate) input_held: Gauge,
    /// Shared with the agent: stored outputs that are sent again.
    pub(crate) output_held: Gauge,
    limits_hit: Family<LimitLabels, Counter>,
    pub(crate) log_lines_dropped: Counter,
    cpu_nanoseconds: Family<AccountLabels, Counter>,
    shuffle_bytes: Counter,
    store_requests: Family<KindLabels, Counter>,
    pub(crate) components: Gauge,
    pub(crate) idempotency_keys: Gauge,
    pub(crate) idempotency_bytes: Gauge,
    pub(crate) free_bytes: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| registry.register(name, help, Gauge::default());
        let counter = |name, help| registry.register(name, help, Counter::default());
        let bytes =
            |name, help| registry.register_with_unit(name, help, Unit::Bytes, Gauge::default());
        let time = |name, help| registry.register_with_unit(name, help, Unit::Seconds, seconds());
        Self {
            requests: family(registry, "http_requests", "Requests answered"),
            request_seconds: time_family(registry, "http_request", "Time to the first byte"),
            connections: gauge("http_connections", "Open connections"),
            jobs: family(registry, "jobs", "Jobs that are remembered, by status"),
            jobs_ended: family(registry, "jobs_ended", "Ended jobs, by outcome"),
            job_failures: family(registry, "job_failures", "Failed jobs, by code"),
            tasks: family(registry, "tasks", "Ended attempts of tasks"),
            task_failures: family(registry, "task_failures", "Failed attempts, by code"),
            task_seconds: time("task", "Wall time of committed attempts"),
            tasks_waiting: gauge("tasks_waiting", "Tasks that wait for a slot"),
            tasks_running: gauge("tasks_running", "Tasks that were sent to an executor"),
            slots: gauge("slots", "Slots of the executors"),
            steps_waiting: gauge("steps_waiting", "Steps of jobs and components that wait"),
            executor_ready: gauge("executor_ready", "1 while an executor takes work"),
            executors_started: counter("executors_started", "Executors started"),
            executors_lost: counter("executors_lost", "Executors that ended while needed"),
            invocations: family(registry, "invocations", "Answered invocations, by code"),
            invocation_seconds: time_family(
                registry,
                "invocation",
                "Time to the answer, by function",
            ),
            labelled_functions: LabelledFunctions::default(),
            input_held: bytes("invocation_input_held", "Inputs that come in, wait or run"),
            output_held: bytes(
                "invocation_output_held",
                "Outputs that run or are not taken yet",
            ),
            limits_hit: family(registry, "limits_hit", "What was stopped at a limit"),
            log_lines_dropped: counter(
                "log_lines_dropped",
                "Lines of tasks' logs above their bound",
            ),
            cpu_nanoseconds: family(registry, "cpu_nanoseconds", "CPU time, by who bears it"),
            shuffle_bytes: registry.register_with_unit(
                "shuffle_written",
                "What tasks wrote to shuffle objects",
                Unit::Bytes,
                Counter::default(),
            ),
            store_requests: family(registry, "store_requests", "Requests of jobs to buckets"),
            components: gauge("components", "Versions of components in the catalog"),
            idempotency_keys: gauge(
                "idempotency_keys",
                "Idempotency keys of invocations that are kept",
            ),
            idempotency_bytes: bytes(
                "idempotency",
                "Idempotency keys of invocations and their outputs",
            ),
            free_bytes: registry.register_with_unit(
                "data_free",
                "Free space where the data folder lies",
                Unit::Bytes,
                Gauge::default(),
            ),
        }
    }

    /// Records usage, by the account that bears it.
    pub(crate) fn used(&self, usage: &[FunctionUsage]) {
        for one in usage {
            self.cpu("billed", &one.billed);
            self.cpu("platform", &one.platform);
            self.shuffle_bytes.inc_by(one.billed.shuffle_bytes_written);
            self.requested(&one.billed.add(&one.platform));
        }
    }

    /// Records the usage of an attempt that nobody is billed for: one that the platform failed, or a
    /// task's second one.
    pub(crate) fn waived(&self, usage: &[FunctionUsage]) {
        for one in usage {
            self.cpu("platform", &one.billed);
            self.cpu("platform", &one.platform);
            self.shuffle_bytes.inc_by(one.billed.shuffle_bytes_written);
            self.requested(&one.billed.add(&one.platform));
        }
    }

    fn cpu(&self, account: &'static str, meters: &Meters) {
        let ns = meters.guest_cpu_ns.saturating_add(meters.native_cpu_ns);
        let labels = AccountLabels { account };
        self.cpu_nanoseconds.get_or_create(&labels).inc_by(ns);
    }

    fn requested(&self, meters: &Meters) {
        for (kind, n) in [
            ("get", meters.get_requests),
            ("put", meters.put_requests),
            ("list", meters.list_requests),
            ("head", meters.head_requests),
            ("delete", meters.delete_requests),
        ] {
            let labels = KindLabels { kind };
            self.store_requests.get_or_create(&labels).inc_by(n);
        }
    }

    /// Records the limit that a problem names. Executors name limits, too, so an unknown one gets a
    /// label of the closed list.
    pub(crate) fn limit_hit(&self, problem: &Problem) {
        let Some(limit) = &problem.limit else { return };
        let known = LimitKind::ALL
            .iter()
            .map(LimitKind::to_string)
            .find(|known| known == limit);
        let limit = known.unwrap_or_else(|| "other".into());
        self.limits_hit.get_or_create(&LimitLabels { limit }).inc();
    }

    /// Records an invocation of the function `label`, `component@version/function`, that was
    /// answered.
    pub(crate) fn invoked(&self, label: &str, problem: Option<&Problem>, took: Duration) {
        if let Some(problem) = problem {
            self.limit_hit(problem);
        }
        let labels = CodeLabels::from(problem.map(|problem| problem.code));
        self.invocations.get_or_create(&labels).inc();
        let labels = self.labelled_functions.labels(label);
        self.invocation_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Records a job that has ended, and of which nothing runs any more.
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
            let labels = CodeLabels::from(Some(problem.code));
            self.job_failures.get_or_create(&labels).inc();
        }
    }

    /// Records an attempt that failed.
    pub(crate) fn task_failed(&self, problem: &Problem) {
        self.limit_hit(problem);
        let labels = CodeLabels::from(Some(problem.code));
        self.task_failures.get_or_create(&labels).inc();
    }
}

/// Functions that have a label of their own.
#[derive(Debug, Default)]
struct LabelledFunctions(Mutex<HashSet<String>>);

impl LabelledFunctions {
    /// The labels for `component@version/function`. All versions of a function share one.
    fn labels(&self, label: &str) -> FunctionLabels {
        let parts = label.split_once('@').and_then(|(component, rest)| {
            let (_, function) = rest.split_once('/')?;
            Some(format!("{component}/{function}"))
        });
        let function = parts.unwrap_or_else(|| label.to_owned());
        let mut known = lock(&self.0);
        if known.len() < MAX_FUNCTION_LABELS {
            known.insert(function.clone());
        }
        let function = match known.contains(&function) {
            true => function,
            false => "other".into(),
        };
        FunctionLabels { function }
    }
}

/// Registers metrics of one name that differ by label.
fn family<L, M>(registry: &Registry, name: &'static str, help: &'static str) -> Family<L, M>
where
    L: Clone + Hash + Eq,
    M: Default,
    Family<L, M>: Metric,
{
    registry.register(name, help, Family::default())
}

/// Registers histograms of times, of one name, that differ by label.
fn time_family<L>(
    registry: &Registry,
    name: &'static str,
    help: &'static str,
) -> Family<L, Histogram>
where
    L: Clone + Hash + Eq,
    Family<L, Histogram>: Metric,
{
    let family = Family::new_with_constructor(seconds as fn() -> Histogram);
    registry.register_with_unit(name, help, Unit::Seconds, family)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Sources of all roles' metrics.
    const SOURCES: [&str; 2] = [
        include_str!("metrics.rs"),
        include_str!("../../agent/src/metrics.rs"),
    ];
    const PAGE: &str = include_str!("../../docs/metrics.md");

    /// The words after each `before`, as far as they are names.
    fn names<'a>(text: &'a str, before: &'a str) -> BTreeSet<&'a str> {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let behind = text.split(before).skip(1);
        let names = behind.map(|text| text.split(|c| !is_name(c)).next().unwrap_or(""));
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Whoever copies a query from the page finds what it asks for, and what there is to ask for is
    /// on the page.
    #[test]
    fn metrics_are_those_of_the_page() {
        let code = |source: &'static str| source.split("#[cfg(test)]").take(1);
        let words = SOURCES.into_iter().flat_map(code);
        let code: String = words.flat_map(str::split_whitespace).collect();
        let registering = [
            "register(\"",
            "register_with_unit(\"",
            "family(registry,\"",
            "gauge(\"",
            "counter(\"",
            "bytes(\"",
            "time(\"",
        ];
        let registered: BTreeSet<&str> = registering
            .into_iter()
            .flat_map(|before| names(&code, before))
            .collect();
        assert!(registered.len() > 20, "{registered:?}");
        let on_page = names(PAGE, "weft_");
        let units = [
            "",
            "_total",
            "_seconds",
            "_seconds_bucket",
            "_bytes",
            "_bytes_total",
        ];
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
            assert!(PAGE.contains(&format!("`{account}`")), "{account}");
        }
    }

    #[test]
    fn functions_beyond_the_bound_share_a_label() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let invoked = |label: &str| metrics.invoked(label, None, Duration::from_millis(1));
        for n in 0..MAX_FUNCTION_LABELS + 5 {
            invoked(&format!("hello@0.1.0/f{n}"));
        }
        invoked("hello@0.2.0-dev+a.b/f0");
        let text = registry.text().expect("it is written");
        let is_count = |line: &&str| line.starts_with("weft_invocation_seconds_count{");
        let counts: Vec<&str> = text.lines().filter(is_count).collect();
        assert_eq!(counts.len(), MAX_FUNCTION_LABELS + 1, "{text}");
        for (function, count) in [("hello/f0", 2), ("hello/f99", 1), ("other", 5)] {
            let line = format!("weft_invocation_seconds_count{{function=\"{function}\"}} {count}");
            assert!(counts.contains(&line.as_str()), "{line} in {text}");
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
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        metrics.used(std::slice::from_ref(&usage));
        metrics.waived(&[usage]);
        let text = registry.text().expect("it is written");
        for line in [
            "weft_cpu_nanoseconds_total{account=\"billed\"} 5",
            "weft_cpu_nanoseconds_total{account=\"platform\"} 145",
            "weft_shuffle_written_bytes_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
