//! Registry of metrics: roles register theirs at start, `/metrics` shows them all.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use weft_core::lock;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry as Metrics, Unit};

/// Begins the name of every metric.
const PREFIX: &str = "weft";

/// Metrics of one process. Clones share them.
#[derive(Clone)]
pub struct Registry(Arc<Mutex<Registered>>);

struct Registered {
    metrics: Metrics,
    /// A clone of each metric, for the next role that registers its name.
    by_name: HashMap<&'static str, Box<dyn Any + Send>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry without metrics. All that it gets are named `weft_...`.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Registered {
            metrics: Metrics::with_prefix(PREFIX),
            by_name: HashMap::new(),
        })))
    }

    /// Registers a metric and returns it. If another role has registered the name before, both
    /// share that role's metric, because a name must appear once.
    ///
    /// Panics: the name belongs to a metric of another type.
    pub fn register<M: Metric + Clone>(
        &self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) -> M {
        self.add(name, metric, |metrics, metric| {
            metrics.register(name, help, metric);
        })
    }

    /// Registers a metric that has a unit, see [`Registry::register`]. The unit ends its name.
    pub fn register_with_unit<M: Metric + Clone>(
        &self,
        name: &'static str,
        help: &'static str,
        unit: Unit,
        metric: M,
    ) -> M {
        self.add(name, metric, |metrics, metric| {
            metrics.register_with_unit(name, help, unit, metric);
        })
    }

    fn add<M: Metric + Clone>(
        &self,
        name: &'static str,
        metric: M,
        register: impl FnOnce(&mut Metrics, M),
    ) -> M {
        let mut registered = self.lock();
        if let Some(known) = registered.by_name.get(name) {
            let known = known.downcast_ref::<M>();
            return known.expect("metrics of one name have one type").clone();
        }
        register(&mut registered.metrics, metric.clone());
        registered.by_name.insert(name, Box::new(metric.clone()));
        metric
    }

    /// The text that Prometheus reads.
    ///
    /// Errors: a metric cannot be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.lock().metrics)?;
        Ok(text)
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        lock(&self.0)
    }
}

/// A histogram of times, from half a millisecond to a bit over two minutes.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 19))
}

/// Counts something for as long as it is alive.
pub struct UnderWay<'a>(&'a Gauge);

impl<'a> UnderWay<'a> {
    /// Counts one more in `gauge`.
    pub fn new(gauge: &'a Gauge) -> Self {
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
    use super::*;

    #[test]
    fn roles_share_the_metric_of_one_name() {
        let registry = Registry::new();
        let held = |registry: &Registry| -> Gauge {
            registry.register_with_unit("held", "Bytes held", Unit::Bytes, Gauge::default())
        };
        held(&registry).inc_by(2);
        held(&registry.clone()).inc_by(3);
        let text = registry.text().expect("it is written");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["weft_held_bytes 5"]);
    }

    #[test]
    fn what_is_under_way_is_counted_until_it_ends() {
        let gauge = Gauge::default();
        let under_way = UnderWay::new(&gauge);
        assert_eq!(gauge.get(), 1);
        drop(under_way);
        assert_eq!(gauge.get(), 0);
    }
}
