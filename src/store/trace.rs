//! A recording read back as what its devices showed and when, for `source::replay`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::error::{Error, Result};
use super::metadata::{FileMetadata, read_metadata};
use super::read::{read_file, table_files};
use super::rows::SampleRow;
use crate::schema::SAMPLES;
use crate::source::replay::{Shown, Trace};
use crate::source::{Device, Reading};
use crate::units::NS_PER_S;

/// Time that goes back further than this is another boot of the machine, not two polls that met.
const BACKWARD_NS: i64 = NS_PER_S as i64;

/// Reads a campaign directory, or one file of samples.
pub fn read_trace(path: &Path) -> Result<Trace> {
    let refused =
        |expected: &str, found: String| Error::Foreign { path: path.to_owned(), expected: expected.to_owned(), found };
    let files = if path.is_dir() { table_files(path, &SAMPLES)? } else { vec![path.to_owned()] };
    let mut trace = Trace { origin: path.display().to_string(), ..Trace::default() };
    let mut host: Option<String> = None;
    let mut places = HashMap::new();
    for file in &files {
        let metadata = read_metadata(file)?;
        let host = host.get_or_insert_with(|| metadata.host.clone());
        // Identifiers are unique on one host only.
        if *host != metadata.host {
            let found = format!("recordings of {host} and of {}; name one file of samples", metadata.host);
            return Err(refused("the recording of one host", found));
        }
        read_segment(file, metadata, &mut trace, &mut places)?;
    }
    for (shown, device) in trace.shown.iter().zip(&trace.devices) {
        if let Some(pair) = shown.windows(2).find(|pair| goes_back(pair)) {
            let at_s = pair.first().map_or(0.0, |s| s.t_mono_ns as f64 / NS_PER_S);
            let found = format!("time going back after {at_s:.1} s on {}; name one file of samples", device.id);
            return Err(refused("one recording", found));
        }
    }
    if trace.shown.iter().all(Vec::is_empty) {
        return Err(refused("a recording with samples, such as `energylens agent` writes", "none".to_owned()));
    }
    // Two polls that met are put in order; equal instants keep theirs.
    trace.shown.iter_mut().for_each(|shown| shown.sort_by_key(|s| s.t_mono_ns));
    Ok(trace)
}

fn goes_back(pair: &[Shown]) -> bool {
    matches!(pair, [before, after] if after.t_mono_ns < before.t_mono_ns.saturating_sub(BACKWARD_NS))
}

fn read_segment(
    file: &Path,
    metadata: FileMetadata,
    trace: &mut Trace,
    places: &mut HashMap<Arc<str>, usize>,
) -> Result<()> {
    if trace.driver.is_empty() {
        trace.driver = metadata.driver;
    }
    let described: HashMap<&str, &Device> = metadata.devices.iter().map(|d| (d.id.as_str(), d)).collect();
    for batch in read_file(file, &SAMPLES)? {
        for row in SampleRow::from_batch(&batch?).map_err(|e| e.in_file(file))? {
            let place = match places.get(&row.device) {
                Some(place) => *place,
                None => {
                    let Some(device) = described.get(row.device.as_ref()) else {
                        let found = format!("a reading of {}, which its device table lacks", row.device);
                        return Err(Error::Foreign {
                            path: file.to_owned(),
                            expected: "readings of the devices in its metadata".to_owned(),
                            found,
                        });
                    };
                    trace.devices.push((*device).clone());
                    trace.shown.push(Vec::new());
                    places.insert(row.device.clone(), trace.devices.len() - 1);
                    trace.devices.len() - 1
                }
            };
            if let Some(shown) = trace.shown.get_mut(place) {
                shown.push(shown_by(&row, shown.last()));
            }
        }
    }
    Ok(())
}

/// A value that moved was there from the middle of its bracket on; one that did not (a heartbeat), from when it was read.
fn shown_by(row: &SampleRow, before: Option<&Shown>) -> Shown {
    let reading =
        Reading { energy_counter_uj: row.energy_counter_uj, power_w: row.power_w, t_device_ns: row.t_device_ns };
    let has_moved = before.is_some_and(|b| match (row.energy_counter_uj, b.reading.energy_counter_uj) {
        (None, None) => b.reading.power_w != row.power_w,
        (now, then) => now != then,
    });
    let half_ns = row.t_mono_ns.saturating_sub(row.t_prev_poll_ns).max(0) / 2;
    Shown { t_mono_ns: if has_moved { row.t_mono_ns.saturating_sub(half_ns) } else { row.t_mono_ns }, reading }
}
