//! Exporter of traces: sends spans to the OpenTelemetry collector that the environment names.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::http::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanBuilder, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

/// Variables that turn traces on: where the collector listens, for traces alone or for all that
/// OpenTelemetry exports. The first one counts.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// How long the collector may take for a batch of spans, each time that it is sent.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the last spans may take when the process stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts spans and sends them to the collector when they have ended.
pub struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Exporter {
    /// An exporter to the collector that the environment names, if it names one. Must be called in
    /// a runtime. `service` names this process unless the environment does.
    ///
    /// Errors: a collector that cannot be reached over plain HTTP.
    pub fn from_environment(service: &'static str) -> anyhow::Result<Option<Self>> {
        let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let disabled = std::env::var("OTEL_SDK_DISABLED");
        let disabled = disabled.is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(name) = ENDPOINTS
            .iter()
            .find(|name| set(name))
            .filter(|_| !disabled)
        else {
            return Ok(None);
        };
        let endpoint = std::env::var(name)?;
        if !endpoint.starts_with("http://") {
            bail!(
                "`{name}` is `{endpoint}`: traces are sent over `http://` alone; run a collector beside the server that forwards them"
            );
        }
        let exporter = SpanExporter::builder().with_http();
        let exporter = exporter.with_http_client(Collector::new()).build();
        let exporter =
            exporter.with_context(|| format!("traces cannot be sent to `{endpoint}`"))?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(service))
            .with_batch_exporter(exporter)
            .build();
        tracing::info!(endpoint, "traces are sent");
        Ok(Some(Self {
            tracer: provider.tracer(service),
            provider,
        }))
    }

    /// Starts a span below `parent`. It ends with the returned context, unless it is ended before.
    pub fn start(&self, span: SpanBuilder, parent: &Context) -> Context {
        parent.with_span(self.tracer.build_with_context(span, parent))
    }

    /// Sends the spans that have not been sent yet, and stops. Blocks for a second at most.
    pub fn flush(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// The span that a client's `traceparent` names, as a parent for spans of its request.
pub fn remote_parent(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

fn resource(service: &'static str) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(service)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    let resource = match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name),
        _ => resource,
    };
    resource.build()
}

/// Sends spans, from whichever thread, through the process's runtime.
#[derive(Debug)]
struct Collector {
    runtime: Handle,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Collector {
    fn new() -> Self {
        Self {
            runtime: Handle::current(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let whole = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        // The one who asks has no runtime of its own, and so no timer.
        let in_time = async { tokio::time::timeout(EXPORT_TIMEOUT, whole).await };
        let sending = self.runtime.spawn(in_time);
        sending.await??
    }
}
