//! Metrics of a node's agent: compilations, and invocations on their way through it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use weft_telemetry::Registry;

/// All metrics of one agent.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) compilations: Counter,
    pub(crate) invocations_under_way: Gauge,
    pub(crate) invocations_streaming: Gauge,
    pub(crate) output_held: Gauge,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn new(registry: &Registry) -> Self {
        Self {
            compilations: registry.register(
                "compilations",
                "Compilations of components",
                Counter::default(),
            ),
            invocations_under_way: registry.register(
                "invocations_under_way",
                "Invocations that run or wait",
                Gauge::default(),
            ),
            invocations_streaming: registry.register(
                "invocations_streaming",
                "Invocations of map functions that run",
                Gauge::default(),
            ),
            output_held: registry.register_with_unit(
                "invocation_output_held",
                "Room for outputs of invocations that run, and outputs that their clients \
                 have not taken",
                Unit::Bytes,
                Gauge::default(),
            ),
        }
    }
}
