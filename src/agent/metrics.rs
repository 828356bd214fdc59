//! What monitoring sees of a recording: OpenMetrics text, on request, on the loopback interface only.

mod listener;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use self::listener::Listener;
use super::error::{Error, Result};
use super::recording::{DeviceRecording, Recording};
use super::socket::MarkCounts;

/// What an answer is made of: the latest summary, and the marks' counts where marks are taken.
#[derive(Debug, Default)]
pub struct MetricsState {
    recording: Mutex<Recording>,
    marks: Option<Arc<MarkCounts>>,
}

impl MetricsState {
    /// With nothing recorded yet.
    pub fn new(marks: Option<Arc<MarkCounts>>) -> Self {
        Self { recording: Mutex::default(), marks }
    }

    /// From now on answers are made of `recording`.
    pub fn publish(&self, recording: Recording) {
        *self.recording.lock().unwrap_or_else(PoisonError::into_inner) = recording;
    }

    /// The answer, as text.
    fn text(self: &Arc<Self>) -> std::result::Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("energylens");
        registry.register_collector(Box::new(Snapshot(self.clone())));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Answers scrapes on a thread of its own until dropped.
pub struct MetricsServer {
    listener: Listener,
}

impl MetricsServer {
    /// Listens on `address`, which must be of the loopback interface; port 0 takes a free one.
    pub fn start(address: SocketAddr, state: Arc<MetricsState>) -> Result<Self> {
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback { address });
        }
        let answer = move || state.text().unwrap_or_default();
        let listener =
            Listener::start(address, Box::new(answer)).map_err(|source| Error::Listen { address, source })?;
        Ok(Self { listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }
}

#[derive(Debug)]
struct Snapshot(Arc<MetricsState>);

type Label = [(&'static str, String); 1];

fn of_device(device: &DeviceRecording) -> Label {
    [("device", device.device.clone())]
}

/// One metric with a value per label set; without any there is no metric.
fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    values: Vec<(Label, M)>,
) -> fmt::Result {
    let Some((_, first)) = values.first() else { return Ok(()) };
    let mut descriptor = encoder.encode_descriptor(name, help, unit, first.metric_type())?;
    for (label, value) in &values {
        value.encode(descriptor.encode_family(label)?)?;
    }
    Ok(())
}

fn single<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    value: &M,
) -> fmt::Result {
    value.encode(encoder.encode_descriptor(name, help, unit, value.metric_type())?)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A clone, so that a slow reader of the answer never holds up who publishes.
        let r = self.0.recording.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let e = &mut encoder;
        devices(e, &r.devices)?;
        single(e, ("rows", "Sample rows handed to the writer", None), &ConstCounter::new(r.rows))?;
        single(e, ("lost_rows", "Sample rows lost because the ring was full", None), &ConstCounter::new(r.lost_rows))?;
        single(e, ("polls", "Reads of counters", None), &ConstCounter::new(r.polls))?;
        single(
            e,
            ("late_polls", "Reads that began more than a poll distance late", None),
            &ConstCounter::new(r.late_polls),
        )?;
        let read_s = r.read_cost.mean_read_ns * r.read_cost.count as f64 / 1e9;
        let help = "Time spent inside the drivers' read calls";
        single(e, ("read", help, Some(&Unit::Seconds)), &ConstCounter::new(read_s))?;
        if let Some(cpu_s) = r.sampler_cpu_s {
            single(
                e,
                ("sampler_cpu", "Processor time of the sampling threads", Some(&Unit::Seconds)),
                &ConstCounter::new(cpu_s),
            )?;
        }
        if let Some(marks) = &self.0.marks {
            single(e, ("marks", "Phase marks taken", None), &ConstCounter::new(marks.accepted()))?;
            let refused = marks.refused();
            let refused =
                refused.map(|(why, n)| ([("reason", why.as_str().to_owned())], ConstCounter::new(n))).collect();
            family(e, ("marks_refused", "Phase marks refused, by reason", None), refused)?;
        }
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        family(e, ("build", "Which energylens this is", None), vec![(version, ConstGauge::new(1_u64))])
    }
}

fn devices(e: &mut DescriptorEncoder<'_>, devices: &[DeviceRecording]) -> fmt::Result {
    fn each<V, M>(
        devices: &[DeviceRecording],
        value: impl Fn(&DeviceRecording) -> Option<V>,
        metric: impl Fn(V) -> M,
    ) -> Vec<(Label, M)> {
        devices.iter().filter_map(|d| Some((of_device(d), metric(value(d)?)))).collect()
    }
    let help = "Energy since the agent started, wraps undone; nothing is counted across resets";
    family(e, ("device_energy", help, Some(&Unit::Joules)), each(devices, |d| d.energy_j, ConstCounter::new))?;
    let help = "Mean power of about the last second";
    family(
        e,
        ("device_power", help, Some(&Unit::Other("watts".to_owned()))),
        each(devices, |d| d.power_w, ConstGauge::new),
    )?;
    let help = "Refresh period of the device's counter, once learnt";
    family(
        e,
        ("device_refresh_period", help, Some(&Unit::Seconds)),
        each(devices, |d| d.refresh_period_s, ConstGauge::new),
    )?;
    let help = "Resets, leaps and holes of the counter, across which no energy is counted";
    family(e, ("device_gaps", help, None), each(devices, |d| Some(d.gaps), ConstCounter::new))?;
    let help = "Reads that gave nothing";
    family(e, ("device_read_errors", help, None), each(devices, |d| Some(d.read_errors), ConstCounter::new))?;
    let help = "1 while the device is read, 0 once it has left or while it hangs in its driver";
    let is_up = |d: &DeviceRecording| Some(u64::from(!d.gone && d.stuck_since_mono_ns.is_none()));
    family(e, ("device_up", help, None), each(devices, is_up, ConstGauge::new))
}

#[cfg(test)]
mod tests;
