//! What `top` knows of each device, from the rows that the sampler emits.

use std::collections::VecDeque;

use energylens::agent::{DeviceRecording, ReadCost};
use energylens::dataset::unwrap::Unwrapper;
use energylens::schema::EnergySource;
use energylens::source::Device;
use energylens::store::SampleRow;

/// Power is the mean over this long at least: differences of single refreshes are noisy.
const POWER_NS: i64 = 1_000_000_000;

/// Watts that are remembered for the trend.
const TREND: usize = 120;

/// A counter that was silent for so long has no power to show.
const STALE_NS: i64 = 5_000_000_000;

/// What the sampler's thread says.
#[derive(Debug)]
pub(super) enum Message {
    Row(SampleRow),
    /// About once a second.
    Summary {
        devices: Vec<DeviceRecording>,
        read_cost: ReadCost,
        late_polls: u64,
    },
}

/// One device.
pub(super) struct Meter {
    pub(super) device: Device,
    unwrapper: Unwrapper,
    /// Instant and joules of recent edges.
    recent: VecDeque<(i64, f64)>,
    last_total_j: Option<f64>,
    /// Joules since the start.
    pub(super) joules: f64,
    pub(super) power_w: Option<f64>,
    /// Whether the power comes from a sensor, for want of a counter.
    pub(super) is_sensor: bool,
    last_sensor: Option<(i64, f64)>,
    pub(super) trend: VecDeque<f64>,
    pub(super) gaps: u64,
    pub(super) summary: Option<DeviceRecording>,
}

/// The node.
pub(super) struct State {
    pub(super) host: String,
    pub(super) meters: Vec<Meter>,
    pub(super) read_cost: ReadCost,
    pub(super) late_polls: u64,
    /// First device line that is shown.
    pub(super) scrolled: usize,
}

impl State {
    pub(super) fn new(host: String, devices: Vec<Device>) -> Self {
        let meters = devices.into_iter().map(Meter::new).collect();
        Self { host, meters, read_cost: ReadCost::default(), late_polls: 0, scrolled: 0 }
    }

    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Row(row) => {
                if let Some(meter) = self.meters.iter_mut().find(|m| m.device.id == *row.device) {
                    meter.take(&row);
                }
            }
            Message::Summary { devices, read_cost, late_polls } => {
                (self.read_cost, self.late_polls) = (read_cost, late_polls);
                for summary in devices {
                    if let Some(meter) = self.meters.iter_mut().find(|m| m.device.id == summary.device) {
                        meter.summary = Some(summary);
                    }
                }
            }
        }
    }

    /// Notes the present power of every device for its trend.
    pub(super) fn tick(&mut self, now_ns: i64) {
        for meter in &mut self.meters {
            if meter.recent.back().is_some_and(|(t, _)| now_ns - t > STALE_NS) {
                meter.power_w = None;
            }
            if meter.trend.len() == TREND {
                meter.trend.pop_front();
            }
            meter.trend.push_back(meter.power_w.unwrap_or(0.0));
        }
    }
}

impl Meter {
    fn new(device: Device) -> Self {
        Self {
            unwrapper: Unwrapper::new(device.counter_modulus_uj, device.power_limit_w),
            device,
            recent: VecDeque::new(),
            last_total_j: None,
            joules: 0.0,
            power_w: None,
            is_sensor: false,
            last_sensor: None,
            trend: VecDeque::new(),
            gaps: 0,
            summary: None,
        }
    }

    fn take(&mut self, row: &SampleRow) {
        let Some(counter_uj) = row.energy_counter_uj else {
            self.take_sensor(row);
            return;
        };
        let Some((edge, gap)) = self.unwrapper.push(counter_uj, row.t_mono_ns, row.t_prev_poll_ns).edge() else {
            return;
        };
        let total_j = edge.energy_uj as f64 / 1e6;
        if gap.is_some() {
            // Joules across a reset are not known, and not invented.
            self.gaps += 1;
            self.recent.clear();
        } else if let Some(last_j) = self.last_total_j {
            self.joules += total_j - last_j;
        }
        self.last_total_j = Some(total_j);
        self.recent.push_back((row.t_mono_ns, total_j));
        while self.recent.get(1).is_some_and(|(t, _)| row.t_mono_ns - t >= POWER_NS) {
            self.recent.pop_front();
        }
        if let (Some((t0, j0)), Some((t1, j1))) = (self.recent.front(), self.recent.back()) {
            self.power_w = (t1 > t0).then(|| (j1 - j0) / ((t1 - t0) as f64 / 1e9)).or(self.power_w);
        }
    }

    fn take_sensor(&mut self, row: &SampleRow) {
        let Some(power_w) = row.power_w.filter(|w| w.is_finite() && *w >= 0.0) else { return };
        self.is_sensor = row.source != EnergySource::Simulated;
        if let Some((t_ns, last_w)) = self.last_sensor.replace((row.t_mono_ns, power_w)) {
            self.joules += last_w * (row.t_mono_ns - t_ns).max(0) as f64 / 1e9;
        }
        self.power_w = Some(power_w);
    }
}
