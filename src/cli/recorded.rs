//! What a campaign's recordings say of themselves, for its report: loss and cost, power over time, phases.
//!
//! Power is kept in so many stretches of time per device, however long a recording is, and each keeps its least and its
//! greatest: no peak is lost and no end is cut off. Nodes are told apart. Instants are those of the monotonic clock where
//! one node has one, else of the wall clock, which all share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use energylens::agent::Recording;
use energylens::report::{FailedRun, PhaseBand, PowerTrace, RecordingFacts};
use energylens::schema::{MARKS, MarkEvent, RUNS, RunStatus, SAMPLES, Table};
use energylens::store::{
    self, FileMetadata, MarkRow, RunRow, SampleRow, part_of, read_file, read_metadata, read_table, table_files,
};
use energylens::units::{counter_difference_j, ns_to_s};
use serde::Deserialize;

/// Stretches of a trace at most, two points each: more than a chart has pixels.
const STRETCHES: usize = 1_000;

/// Length of a stretch while the trace is short.
const SHORTEST_NS: i64 = 1_000_000;

/// Clocks of one boot differ from the wall clock by the same, but for corrections of the latter.
const SAME_BOOT_NS: i64 = 1_000_000_000;

/// The driver that a simulated node names.
const SIMULATED: &str = "simulated";

/// What was recorded in a campaign's directory.
pub(super) struct Recorded {
    /// Loss and cost, where anything was recorded.
    pub(super) facts: Option<RecordingFacts>,
    pub(super) power: Vec<PowerTrace>,
    pub(super) phases: Vec<PhaseBand>,
    pub(super) failed_runs: Vec<FailedRun>,
}

/// One file of a recording.
struct Segment {
    path: PathBuf,
    /// The recording that was moved into the directory, if it was.
    part: Option<String>,
    metadata: FileMetadata,
}

/// One counter of one recording.
struct Counter {
    /// What its trace is called.
    trace: String,
    /// The reading before, and its instant.
    last: Option<(i64, u64)>,
}

/// Reads all samples and marks of a campaign.
pub(super) fn read(campaign: &Path) -> store::Result<Recorded> {
    let (samples, marks) = (segments(campaign, &SAMPLES)?, segments(campaign, &MARKS)?);
    let axis = Axis::of(&samples);
    let mut traces: BTreeMap<String, Stretches> = BTreeMap::new();
    let mut counters: BTreeMap<(Option<&str>, &str, Arc<str>), Counter> = BTreeMap::new();
    for segment in &samples {
        for batch in read_file(&segment.path, &SAMPLES)? {
            for row in SampleRow::from_batch(&batch?)? {
                let Some(counter_uj) = row.energy_counter_uj else { continue };
                let key = (segment.part.as_deref(), segment.metadata.host.as_str(), row.device.clone());
                let counter = counters.entry(key).or_insert_with(|| {
                    let trace = axis.name(segment, &row.device);
                    traces.entry(trace.clone()).or_default();
                    Counter { trace, last: None }
                });
                let before = counter.last.replace((row.t_mono_ns, counter_uj));
                let Some((t_before, before_uj)) = before.filter(|(t, _)| *t < row.t_mono_ns) else { continue };
                let Some(energy_j) = counter_difference_j(before_uj, counter_uj) else { continue };
                let power_w = energy_j / ns_to_s(row.t_mono_ns.saturating_sub(t_before));
                if let Some(trace) = traces.get_mut(&counter.trace) {
                    trace.add(axis.instant_ns(segment, row.t_mono_ns), power_w);
                }
            }
        }
    }
    let origin_ns = traces.values().filter_map(Stretches::first_ns).min().unwrap_or(0);
    Ok(Recorded {
        facts: (!samples.is_empty()).then(|| facts(&samples)),
        power: traces.into_iter().map(|(device, trace)| trace.drawn(device, origin_ns)).collect(),
        phases: phases(&marks, &axis, origin_ns)?,
        failed_runs: failed_runs(campaign)?,
    })
}

fn segments(campaign: &Path, table: &'static Table) -> store::Result<Vec<Segment>> {
    let segment = |path: PathBuf| {
        let part = part_of(&path).map(str::to_owned);
        Ok(Segment { part, metadata: read_metadata(&path)?, path })
    };
    table_files(campaign, table)?.into_iter().map(segment).collect()
}

/// What instants and devices of several recordings have in common.
struct Axis {
    is_wall: bool,
    several_hosts: bool,
    /// Simulated recordings each have a clock of their own, so that no device of one is a device of another.
    several_simulated: bool,
}

impl Axis {
    fn of(samples: &[Segment]) -> Self {
        let hosts: BTreeSet<&str> = samples.iter().map(|s| s.metadata.host.as_str()).collect();
        let parts: BTreeSet<Option<&str>> = samples.iter().map(|s| s.part.as_deref()).collect();
        let is_simulated = samples.iter().any(|s| s.metadata.driver == SIMULATED);
        let boots = samples.iter().map(|s| s.metadata.anchor.unix_ns(0));
        let apart = boots.clone().max().unwrap_or(0).saturating_sub(boots.min().unwrap_or(0));
        // A simulated node that goes on has a new anchor and the clock it had.
        let is_wall = hosts.len() > 1 || parts.len() > 1 || (apart > SAME_BOOT_NS && !is_simulated);
        Self { is_wall, several_hosts: hosts.len() > 1, several_simulated: parts.len() > 1 && is_simulated }
    }

    fn instant_ns(&self, segment: &Segment, t_mono_ns: i64) -> i64 {
        if self.is_wall { segment.metadata.anchor.unix_ns(t_mono_ns) } else { t_mono_ns }
    }

    fn name(&self, segment: &Segment, device: &str) -> String {
        let host = self.several_hosts.then_some(segment.metadata.host.as_str());
        let part = segment.part.as_deref().filter(|_| self.several_simulated);
        host.into_iter().chain([device]).chain(part).collect::<Vec<_>>().join(" ")
    }
}

/// Power in stretches of time that are all alike long, and longer the longer the trace is.
struct Stretches {
    length_ns: i64,
    by_place: BTreeMap<i64, Ends>,
}

/// The least and the greatest power of a stretch, each with its instant.
#[derive(Clone, Copy)]
struct Ends {
    least: (i64, f64),
    greatest: (i64, f64),
}

impl Ends {
    fn join(&mut self, other: Self) {
        if other.least.1 < self.least.1 {
            self.least = other.least;
        }
        if other.greatest.1 > self.greatest.1 {
            self.greatest = other.greatest;
        }
    }
}

impl Default for Stretches {
    fn default() -> Self {
        Self { length_ns: SHORTEST_NS, by_place: BTreeMap::new() }
    }
}

impl Stretches {
    fn add(&mut self, t_ns: i64, power_w: f64) {
        let place = t_ns.div_euclid(self.length_ns);
        self.put(place, Ends { least: (t_ns, power_w), greatest: (t_ns, power_w) });
        while self.by_place.len() > STRETCHES {
            self.length_ns = self.length_ns.saturating_mul(2);
            for (place, ends) in std::mem::take(&mut self.by_place) {
                self.put(place.div_euclid(2), ends);
            }
        }
    }

    fn put(&mut self, place: i64, ends: Ends) {
        self.by_place.entry(place).and_modify(|own| own.join(ends)).or_insert(ends);
    }

    fn first_ns(&self) -> Option<i64> {
        self.by_place.values().next().map(|ends| ends.least.0.min(ends.greatest.0))
    }

    fn drawn(self, device: String, origin_ns: i64) -> PowerTrace {
        let mut trace = PowerTrace { device, t_s: Vec::new(), power_w: Vec::new() };
        for Ends { least, greatest } in self.by_place.into_values() {
            let (first, second) = if least.0 <= greatest.0 { (least, greatest) } else { (greatest, least) };
            for (t_ns, power_w) in [first].into_iter().chain((first.0 != second.0).then_some(second)) {
                trace.t_s.push(ns_to_s(t_ns.saturating_sub(origin_ns)));
                trace.power_w.push(power_w);
            }
        }
        trace
    }
}

fn phases(marks: &[Segment], axis: &Axis, origin_ns: i64) -> store::Result<Vec<PhaseBand>> {
    let mut bands = Vec::new();
    let mut open: BTreeMap<(Option<&str>, String, String), i64> = BTreeMap::new();
    for segment in marks {
        for batch in read_file(&segment.path, &MARKS)? {
            for mark in MarkRow::from_batch(&batch?)? {
                let t_s = ns_to_s(axis.instant_ns(segment, mark.t_mono_ns).saturating_sub(origin_ns));
                let key = (segment.part.as_deref(), mark.run_id, mark.phase);
                match mark.event {
                    MarkEvent::Begin => drop(open.insert(key, mark.t_mono_ns)),
                    MarkEvent::End => {
                        let Some(begin) = open.remove(&key) else { continue };
                        let start_s = ns_to_s(axis.instant_ns(segment, begin).saturating_sub(origin_ns));
                        bands.push(PhaseBand { run_id: key.1, phase: key.2, start_s, end_s: t_s });
                    }
                }
            }
        }
    }
    bands.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
    Ok(bands)
}

fn failed_runs(campaign: &Path) -> store::Result<Vec<FailedRun>> {
    let mut failed = Vec::new();
    for batch in read_table(campaign, &RUNS)? {
        let runs = RunRow::from_batch(&batch?)?.into_iter().filter(|run| run.status == RunStatus::Failed);
        failed.extend(runs.map(|run| FailedRun {
            run_id: run.run_id,
            reason: run.error.unwrap_or_else(|| "no reason was given".to_owned()),
        }));
    }
    Ok(failed)
}

/// What a file that was made from several segments keeps of one of them.
#[derive(Deserialize)]
struct Made {
    recording: Option<String>,
}

/// The summaries in a file's metadata. None: it is still written, or its recorder was killed.
fn summaries(metadata: &FileMetadata) -> Vec<Recording> {
    let made: Option<Vec<Made>> = metadata.extra.get("compacted_from").and_then(|text| serde_json::from_str(text).ok());
    let merged = made.into_iter().flatten().filter_map(|made| made.recording);
    let own = metadata.extra.get("recording").cloned();
    merged.chain(own).filter_map(|text| serde_json::from_str(&text).ok()).collect()
}

/// The recordings of all segments, added up. A segment's summary is of its recording until then, so that the last of each
/// recording counts.
fn facts(samples: &[Segment]) -> RecordingFacts {
    let mut recordings: BTreeMap<(Option<&str>, String, i64), Recording> = BTreeMap::new();
    let mut silent_files = 0;
    for segment in samples {
        let told = summaries(&segment.metadata);
        silent_files += usize::from(told.is_empty());
        for recording in told {
            let key = (segment.part.as_deref(), recording.host.clone(), recording.t_begin_mono_ns);
            let is_later = |known: &Recording| known.t_end_mono_ns <= recording.t_end_mono_ns;
            if recordings.get(&key).is_none_or(is_later) {
                recordings.insert(key, recording);
            }
        }
    }
    let several_hosts = samples.iter().map(|s| &s.metadata.host).collect::<BTreeSet<_>>().len() > 1;
    let devices: BTreeSet<String> = samples
        .iter()
        .flat_map(|s| s.metadata.devices.iter().map(|d| (&s.metadata.host, &d.id)))
        .map(|(host, id)| if several_hosts { format!("{host} {id}") } else { id.clone() })
        .collect();
    let facts = RecordingFacts {
        devices: Some(devices.into_iter().collect()),
        silent_files: Some(silent_files),
        ..RecordingFacts::default()
    };
    if recordings.is_empty() {
        return facts;
    }
    let sum = |of: fn(&Recording) -> u64| Some(recordings.values().map(of).sum());
    let duration_s = |r: &Recording| ns_to_s(r.t_end_mono_ns.saturating_sub(r.t_begin_mono_ns));
    let cpu = recordings.values().filter_map(|r| Some((r.sampler_cpu_s?, duration_s(r))));
    let (cpu_s, cpu_of_s) = cpu.fold((0.0, 0.0), |(cpu, of), (more, also)| (cpu + more, of + also));
    RecordingFacts {
        edges: sum(|r| r.edges),
        polls: sum(|r| r.polls),
        lost: sum(|r| r.lost_rows),
        duration_s: Some(recordings.values().map(duration_s).sum()),
        cpu_share: (cpu_of_s > 0.0).then(|| cpu_s / cpu_of_s),
        ..facts
    }
}

#[cfg(test)]
mod tests;
