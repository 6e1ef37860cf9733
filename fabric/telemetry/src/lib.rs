//! Telemetry that all roles of one process share: a registry of metrics, an exporter of traces.
//!
//! ```text
//! controller ──registers──▶ Registry ──text──▶ /metrics
//! agent ──────registers───────▲
//! controller ──spans──▶ Exporter ──OTLP over HTTP──▶ collector
//! ```
//!
//! Each role keeps its own metrics and spans in its own crate. This is the only crate that names
//! OpenTelemetry: roles use what [`trace`] passes on.

mod exporter;
mod labels;
mod registry;

pub use exporter::{Exporter, remote_parent};
pub use labels::{
    AccountLabels, CodeLabels, FunctionLabels, KindLabels, LimitLabels, OutcomeLabels,
    RequestLabels, RouteLabels, StatusLabels,
};
pub use registry::{Registry, UnderWay, seconds};

/// Types of OpenTelemetry that spans are made of.
pub mod trace {
    pub use opentelemetry::trace::{SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt};
    pub use opentelemetry::{Context, KeyValue};
}
