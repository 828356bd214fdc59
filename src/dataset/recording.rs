//! One pass over the samples of a campaign: the energy of every device in every window that asks for it.

use std::collections::HashMap;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use arrow::record_batch::RecordBatch;

use super::interval::{Collector, Window, WindowEnergy};
use super::power::PowerCollector;
use super::quality::Reason;
use super::unwrap::{Step, Unwrapper};
use crate::schema::SAMPLES;
use crate::source::Device;
use crate::store::{self, columns};

/// A backward step of time within this is two polls that met; beyond it, another recording.
const OVERLAP_NS: i64 = 1_000_000_000;

/// Host and device: device identifiers are unique on their host only.
type Key = (String, String);

/// A window and what its energy turned out to be.
type Answer = (Window, Result<WindowEnergy, Reason>);

/// The windows that are asked of each device, by host and device.
pub(super) type Asked = HashMap<(String, String), Vec<Window>>;

/// What a campaign recorded of the devices of its runs.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    by_device: HashMap<Key, Vec<Answer>>,
}

/// One device while its samples pass.
struct Tracker {
    windows: Vec<Window>,
    unwrapper: Unwrapper,
    counter: Collector,
    power: PowerCollector,
    has_counter: bool,
    has_power: bool,
    latest_ns: i64,
    /// Spans in which two recordings overlap.
    overlaps: Vec<(i64, i64)>,
}

impl Tracker {
    fn new(windows: Vec<Window>) -> Self {
        Self {
            unwrapper: Unwrapper::new(None, None),
            counter: Collector::new(&windows),
            power: PowerCollector::new(&windows),
            windows,
            has_counter: false,
            has_power: false,
            latest_ns: i64::MIN,
            overlaps: Vec::new(),
        }
    }

    /// The file's device table knows how far the counter counts and how much the device may draw.
    fn describe(&mut self, device: &Device) {
        if !self.has_counter {
            self.unwrapper = Unwrapper::new(device.counter_modulus_uj, device.power_limit_w);
            if let Some(step_uj) = device.counter_step_uj {
                self.counter.counts_in(step_uj);
            }
        }
    }

    fn push(&mut self, counter_uj: Option<u64>, power_w: Option<f64>, t_mono_ns: i64, t_prev_poll_ns: i64) {
        if t_mono_ns < self.latest_ns.saturating_sub(OVERLAP_NS) {
            match self.overlaps.last_mut() {
                Some((_, to)) if *to == self.latest_ns => {}
                _ => self.overlaps.push((t_mono_ns, self.latest_ns)),
            }
            return;
        }
        self.latest_ns = self.latest_ns.max(t_mono_ns);
        if let Some(counter_uj) = counter_uj {
            self.has_counter = true;
            let step = self.unwrapper.push(counter_uj, t_mono_ns, t_prev_poll_ns);
            if step == Step::Unchanged {
                return;
            }
            if let Some((edge, gap)) = step.edge() {
                if let Some(reason) = gap {
                    self.counter.gap(reason, edge);
                }
                self.counter.push(edge);
            }
        } else if let Some(power_w) = power_w {
            self.has_power = true;
            self.power.push(power_w, t_mono_ns, t_prev_poll_ns);
        }
    }

    fn finish(self) -> Vec<Answer> {
        let results = if self.has_counter {
            self.counter.finish()
        } else if self.has_power {
            self.power.finish()
        } else {
            vec![Err(Reason::NoEnergySource); self.windows.len()]
        };
        let overlaps = self.overlaps;
        let is_ambiguous = |w: &Window| overlaps.iter().any(|(from, to)| w.t_begin_ns <= *to && *from <= w.t_end_ns);
        self.windows
            .into_iter()
            .zip(results)
            .map(|(w, result)| if is_ambiguous(&w) { (w, Err(Reason::LostSamples)) } else { (w, result) })
            .collect()
    }
}

impl Recordings {
    /// `samples` are the files of one recording, in the order of time.
    pub(super) fn read(samples: &[PathBuf], asked: Asked) -> Result<Self, store::Error> {
        let mut trackers: Vec<Tracker> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        for (key, windows) in asked {
            places.insert(key, trackers.len());
            trackers.push(Tracker::new(windows));
        }
        for path in samples {
            let metadata = store::read_metadata(path)?;
            let place = |device: &str| places.get(&(metadata.host.clone(), device.to_owned())).copied();
            for device in &metadata.devices {
                if let Some(tracker) = place(&device.id).and_then(|p| trackers.get_mut(p)) {
                    tracker.describe(device);
                }
            }
            for batch in store::read_file(path, &SAMPLES)? {
                push_batch(&batch?, &place, &mut trackers)?;
            }
        }
        let mut finished: Vec<Option<Tracker>> = trackers.into_iter().map(Some).collect();
        let by_device = places
            .into_iter()
            .filter_map(|(key, place)| Some((key, finished.get_mut(place)?.take()?.finish())))
            .collect();
        Ok(Self { by_device })
    }

    /// Energy of a device in a window that was asked for.
    pub(super) fn energy(&self, host: &str, device: &str, window: Window) -> Result<WindowEnergy, Reason> {
        self.by_device
            .get(&(host.to_owned(), device.to_owned()))
            .and_then(|windows| windows.iter().find(|(w, _)| *w == window))
            .map_or(Err(Reason::NoEnergySource), |(_, result)| result.clone())
    }
}

/// Looks every device up once per batch, by its dictionary, not once per row.
fn push_batch(
    batch: &RecordBatch,
    place: &dyn Fn(&str) -> Option<usize>,
    trackers: &mut [Tracker],
) -> Result<(), store::Error> {
    let t_mono = columns::i64s(batch, "t_mono_ns")?;
    let t_prev_poll = columns::i64s(batch, "t_prev_poll_ns")?;
    let counter =
        columns::has(batch, "energy_counter_uj").then(|| columns::u64s(batch, "energy_counter_uj")).transpose()?;
    let power = columns::has(batch, "power_w").then(|| columns::f64s(batch, "power_w")).transpose()?;
    let labels = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let Some(devices) = batch.column_by_name("device").and_then(|c| cast(c, &labels).ok()) else {
        // A column of another type: `columns` says so in words.
        return columns::text(batch, "device").map(|_| ());
    };
    let devices = devices.as_dictionary::<Int32Type>();
    let names = devices.values().as_string::<i32>();
    let of_key: Vec<Option<usize>> = names.iter().map(|name| name.and_then(place)).collect();
    for row in 0..batch.num_rows() {
        let key = if devices.is_valid(row) { devices.key(row) } else { None };
        let tracker = key.and_then(|k| of_key.get(k).copied().flatten()).and_then(|p| trackers.get_mut(p));
        let (Some(tracker), Some(t_mono_ns)) = (tracker, columns::value(&t_mono, row)) else { continue };
        let t_prev_poll_ns = columns::value(&t_prev_poll, row).unwrap_or(t_mono_ns);
        let counter_uj = counter.as_ref().and_then(|c| columns::value(c, row));
        let power_w = power.as_ref().and_then(|p| columns::value(p, row));
        tracker.push(counter_uj, power_w, t_mono_ns, t_prev_poll_ns);
    }
    Ok(())
}
