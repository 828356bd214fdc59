//! From the recordings of a campaign to its rows: samples, marks and runs in, the `phases` table out.
//!
//! ```text
//! run r on devices 0..3     prefill window: n_p batches of one token     total window: n_t whole batches
//!   prefill row  = sum over devices of E(prefill window) / n_p
//!   total row    = sum over devices of E(total window) / n_t
//!   decode row   = total - prefill                      method `difference`
//!   decode row   = E(decode window) / n_d               method `marks`, where the workload marked one
//!   stds: added up over devices, whose errors go together; in quadrature over windows, whose errors do not
//! ```
//!
//! Windows of one phase that a workload marked one after the other count together. Only marks between the begin and the
//! end of a run are the run's: an attempt that was broken off has left others under the same name.
//!
//! One pass over the samples of all hosts; of the samples only the edges around window boundaries are kept. A phase that
//! cannot be trusted stays in the table with its reasons, its energy missing where there is none.
//!
//! Limit: instants of one host are compared on its monotonic clock. A reboot within a campaign sets that clock back;
//! windows that lie where two recordings of a device overlap in time are refused as [`Reason::LostSamples`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use self::part::{Part, parts, read_marks};
use super::check;
use super::interval::{Window, WindowEnergy};
use super::quality::{self, Reason};
use super::recording::Recordings;
use super::row::{Dataset, RejectedRow, Row};
use super::steadiness::Steadiness;
use super::{Error, write};
use crate::clock::ClockAnchor;
use crate::schema::{self, EnergySource, MarkEvent, Method, Origin, Phase, RunStatus};
use crate::store::{self, FileMetadata, MarkRow, RunRow};

/// Reduces the recordings of a campaign to rows and writes them to its `phases.parquet`.
///
/// Rows that may be fitted are in [`Dataset::rows`], the others in [`Dataset::rejected`]; the table holds both.
pub fn reduce(campaign_dir: &Path) -> Result<Dataset, Error> {
    let fail = |e: store::Error| Error::Recording { path: campaign_dir.to_owned(), source: Box::new(e) };
    let mut runs: Vec<RunRow> = Vec::new();
    for batch in store::read_table(campaign_dir, &schema::RUNS).map_err(fail)? {
        runs.extend(RunRow::from_batch(&batch.map_err(fail)?).map_err(fail)?);
    }
    // By run; of a run that two recordings have, the first counts.
    let mut reduced: Vec<Option<Vec<Row>>> = vec![None; runs.len()];
    for part in parts(campaign_dir).map_err(fail)?.into_values() {
        let windows = MarkedWindows::of(&read_marks(&part.marks).map_err(fail)?);
        let of_part = |run: &RunRow, rows: &Option<Vec<Row>>| rows.is_none() && windows.of_run(run).next().is_some();
        let found: Vec<bool> = runs.iter().zip(&reduced).map(|(run, rows)| of_part(run, rows)).collect();
        let wanted = runs.iter().zip(&found).filter(|(_, found)| **found).map(|(run, _)| run);
        let seen = part.seen(windows, wanted).map_err(fail)?;
        for ((run, _), rows) in runs.iter().zip(&found).zip(&mut reduced).filter(|((_, found), _)| **found) {
            *rows = Some(seen.rows_of(run));
        }
    }
    let nothing = Seen::default();
    let mut rows: Vec<Row> =
        runs.iter().zip(reduced).flat_map(|(run, rows)| rows.unwrap_or_else(|| nothing.rows_of(run))).collect();
    for (i, row) in rows.iter_mut().enumerate() {
        row.line = i + 1;
    }
    let metadata = metadata_of(campaign_dir, &runs);
    let table = Dataset { rows, ..Dataset::default() };
    write::write_phases_with(&campaign_dir.join("phases.parquet"), &table, &metadata)?;
    Ok(split(table.rows))
}

/// The rows of one run, from what the campaign's own recording holds of it by now; nothing is written.
///
/// Of the recording only what does not end before the run is read: the price does not grow with the campaign.
pub fn of_run(campaign_dir: &Path, run: &RunRow) -> Result<Vec<Row>, Error> {
    let fail = |e: store::Error| Error::Recording { path: campaign_dir.to_owned(), source: Box::new(e) };
    let Part { marks, mut samples, mut telemetry } =
        parts(campaign_dir).map_err(fail)?.remove(&None).unwrap_or_default();
    let is_over = |path: &PathBuf| {
        let end = store::read_metadata(path).ok().and_then(|m| m.extra.get("t_end_mono_ns")?.parse::<i64>().ok());
        end.is_some_and(|t_end_ns| t_end_ns < run.t_begin_mono_ns)
    };
    samples.retain(|path| !is_over(path));
    telemetry.retain(|path| !is_over(path));
    let part = Part { marks, samples, telemetry };
    let windows = MarkedWindows::of(&read_marks(&part.marks).map_err(fail)?);
    Ok(part.seen(windows, std::iter::once(run)).map_err(fail)?.rows_of(run))
}

/// Energy of each of `devices` of `host` in each of `windows` of a recording: one list per window, in the order asked.
pub fn device_energies(
    campaign_dir: &Path,
    host: &str,
    devices: &[String],
    windows: &[Window],
) -> Result<Vec<Vec<Result<WindowEnergy, Reason>>>, Error> {
    let asked = devices.iter().map(|d| ((host.to_owned(), d.clone()), windows.to_vec())).collect();
    let recordings = store::table_files(campaign_dir, &schema::SAMPLES)
        .and_then(|samples| Recordings::read(&samples, asked))
        .map_err(|e| Error::Recording { path: campaign_dir.to_owned(), source: Box::new(e) })?;
    let of_window = |w: &Window| devices.iter().map(|device| recordings.energy(host, device, *w)).collect();
    Ok(windows.iter().map(of_window).collect())
}

fn metadata_of(campaign_dir: &Path, runs: &[RunRow]) -> FileMetadata {
    let host = runs.first().map_or("", |r| r.host.as_str());
    let anchor = store::table_files(campaign_dir, &schema::RUNS)
        .ok()
        .and_then(|files| store::read_metadata(files.first()?).ok())
        .map_or(ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 }, |m| m.anchor);
    FileMetadata::of_host(host, anchor)
}

/// Rows to fit and rows to refuse.
fn split(rows: Vec<Row>) -> Dataset {
    let mut dataset = Dataset::default();
    for row in rows {
        let refused =
            |column: &str, reason: String| RejectedRow { line: row.line, column: Some(column.to_owned()), reason };
        if let Some(word) = quality::rejecting(&row.quality) {
            dataset.rejected.push(refused("quality", quality::describe(&row.run_id, row.phase, word)));
        } else if let Err(refusal) = check::row(&row) {
            dataset.rejected.push(refusal.row);
        } else {
            dataset.rows.push(row);
        }
    }
    dataset
}

/// What a window belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Idle,
    Of(Phase),
}

impl Kind {
    fn parse(phase: &str) -> Option<Self> {
        if phase == "idle" { Some(Self::Idle) } else { phase.parse().ok().map(Self::Of) }
    }
}

/// Windows by run, in the order of time.
#[derive(Debug, Default)]
struct MarkedWindows {
    by_run: HashMap<String, Vec<(Kind, Window)>>,
}

impl MarkedWindows {
    fn of(marks: &[MarkRow]) -> Self {
        let mut sorted: Vec<(&MarkRow, Kind)> =
            marks.iter().filter_map(|m| Some((m, Kind::parse(&m.phase)?))).collect();
        // At one instant a phase ends before the next begins.
        sorted.sort_by_key(|(m, _)| (m.t_mono_ns, m.event == MarkEvent::Begin));
        let mut begun: HashMap<(&str, Kind), i64> = HashMap::new();
        let mut windows = Self::default();
        for (mark, kind) in sorted {
            let key = (mark.run_id.as_str(), kind);
            match mark.event {
                MarkEvent::Begin => {
                    begun.insert(key, mark.t_mono_ns);
                }
                MarkEvent::End => {
                    if let Some(t_begin_ns) = begun.remove(&key) {
                        let window = Window { t_begin_ns, t_end_ns: mark.t_mono_ns };
                        windows.by_run.entry(mark.run_id.clone()).or_default().push((kind, window));
                    }
                }
            }
        }
        windows
    }

    fn within(&self, run: &RunRow) -> impl Iterator<Item = &(Kind, Window)> {
        let (begin, end) = (run.t_begin_mono_ns, run.t_end_mono_ns);
        let all = self.by_run.get(&run.run_id).into_iter().flatten();
        all.filter(move |(_, w)| begin <= w.t_begin_ns && w.t_end_ns <= end)
    }

    fn of_kind(&self, run: &RunRow, kind: Kind) -> Vec<Window> {
        self.within(run).filter(|(k, _)| *k == kind).map(|(_, w)| *w).collect()
    }

    fn of_run(&self, run: &RunRow) -> impl Iterator<Item = Window> {
        self.within(run).map(|(_, w)| *w)
    }
}

/// What a recording holds of its runs.
#[derive(Default)]
struct Seen {
    windows: MarkedWindows,
    recordings: Recordings,
    steadiness: Steadiness,
}

/// Energy of one batch of one phase over all devices of a run.
struct PhaseEnergy {
    /// Energy and its standard uncertainty, J.
    energy: Option<(f64, f64)>,
    duration_s: Option<f64>,
    is_power: bool,
    quality: Vec<Reason>,
}

impl Seen {
    fn phase_energy(&self, run: &RunRow, phase: Phase, batches: u32) -> PhaseEnergy {
        let nothing = |reason| PhaseEnergy { energy: None, duration_s: None, is_power: false, quality: vec![reason] };
        let windows = self.windows.of_kind(run, Kind::Of(phase));
        if windows.is_empty() || batches == 0 {
            return nothing(Reason::MissingMark);
        }
        let n = f64::from(batches);
        let duration_s = Some(windows.iter().map(|w| w.duration_s()).sum::<f64>() / n);
        if run.devices.is_empty() {
            return PhaseEnergy { duration_s, ..nothing(Reason::NoEnergySource) };
        }
        let (mut energy_j, mut std_j, mut is_power, mut is_whole) = (0.0, 0.0, false, true);
        let mut quality: Vec<Reason> = Vec::new();
        let mut doubt = |reason| {
            if !quality.contains(&reason) {
                quality.push(reason);
            }
        };
        for (device, window) in run.devices.iter().flat_map(|d| windows.iter().map(move |w| (d, *w))) {
            match self.recordings.energy(&run.host, device, window) {
                Ok(WindowEnergy { energy_j: e, std_j: device_std_j, quality, .. }) => {
                    energy_j += e;
                    // The GPUs of a run begin and end their batches together: what is mistaken about the power around a
                    // mark is mistaken alike on all of them, so their uncertainties add up rather than average out. So
                    // are the windows of one phase mistaken alike, whose edges meet the same neighbours.
                    std_j += device_std_j;
                    is_power |= quality.contains(&Reason::PowerIntegrated);
                    // Whether the energy of the run is too uncertain is for the sum to say, not for one device.
                    quality.iter().filter(|r| **r != Reason::TooUncertain).for_each(|r| doubt(*r));
                }
                Err(reason) => {
                    is_whole = false;
                    doubt(reason);
                }
            }
            self.steadiness.reasons(&run.host, device, window).into_iter().for_each(&mut doubt);
        }
        for (device, idle) in self.idle(run) {
            if self.steadiness.is_busy(&run.host, device, idle) {
                doubt(Reason::BusyBefore);
            }
        }
        if is_whole && !quality::is_certain(energy_j, std_j) {
            quality.push(Reason::TooUncertain);
        }
        PhaseEnergy { energy: is_whole.then_some((energy_j / n, std_j / n)), duration_s, is_power, quality }
    }

    fn idle<'a>(&self, run: &'a RunRow) -> impl Iterator<Item = (&'a String, Window)> {
        let idle = self.windows.of_kind(run, Kind::Idle).first().copied();
        run.devices.iter().filter_map(move |d| Some((d, idle?)))
    }

    /// Mean power of all devices before anything ran, W; `None` where one of them is not known.
    fn idle_power_w(&self, run: &RunRow) -> Option<f64> {
        let power = |(device, window): (&String, Window)| {
            let energy = self.recordings.energy(&run.host, device, window).ok()?;
            (window.duration_s() > 0.0).then(|| energy.energy_j / window.duration_s())
        };
        let each: Vec<_> = self.idle(run).map(power).collect();
        if each.is_empty() { None } else { each.into_iter().sum() }
    }

    fn rows_of(&self, run: &RunRow) -> Vec<Row> {
        let is_prefill_only = run.output_tokens <= 1.0;
        if run.status == RunStatus::Failed {
            let quality = vec![Reason::RunFailed];
            let failed = PhaseEnergy { energy: None, duration_s: None, is_power: false, quality };
            return vec![row(run, if is_prefill_only { Phase::Prefill } else { Phase::Total }, failed)];
        }
        let mut rows = Vec::new();
        let marked = run.decode_batches.map(|batches| self.phase_energy(run, Phase::Decode, batches));
        let prefill = (run.prefill_batches > 0 || is_prefill_only)
            .then(|| self.phase_energy(run, Phase::Prefill, run.prefill_batches));
        // Who marked prefill and decode has no need to mark the whole.
        let total = (run.total_batches > 0 || !(is_prefill_only || marked.is_some()))
            .then(|| self.phase_energy(run, Phase::Total, run.total_batches));
        let decode = match (&prefill, &total) {
            (Some(prefill), Some(total)) if !is_prefill_only => Some(difference(total, prefill)),
            _ => None,
        };
        rows.extend(prefill.map(|e| row(run, Phase::Prefill, e)));
        let decode_row = |e, method| Row { method: Some(method), ..row(run, Phase::Decode, e) };
        rows.extend(decode.map(|e| decode_row(e, Method::Difference)));
        rows.extend(marked.map(|e| decode_row(e, Method::Marks)));
        rows.extend(total.map(|e| row(run, Phase::Total, e)));
        let idle_power_w = self.idle_power_w(run);
        rows.iter_mut().for_each(|row| row.idle_power_w = idle_power_w);
        rows
    }
}

fn difference(total: &PhaseEnergy, prefill: &PhaseEnergy) -> PhaseEnergy {
    let energy = total.energy.zip(prefill.energy).map(|((t, t_std), (p, p_std))| (t - p, t_std.hypot(p_std)));
    let mut quality = total.quality.clone();
    quality.extend(prefill.quality.iter().filter(|r| !total.quality.contains(r)));
    if let Some((energy_j, std_j)) = energy
        && !quality::is_certain(energy_j, std_j)
        && !quality.contains(&Reason::TooUncertain)
    {
        quality.push(Reason::TooUncertain);
    }
    let duration_s = total.duration_s.zip(prefill.duration_s).map(|(t, p)| t - p).filter(|d| *d > 0.0);
    PhaseEnergy { energy, duration_s, is_power: total.is_power || prefill.is_power, quality }
}

fn row(run: &RunRow, phase: Phase, energy: PhaseEnergy) -> Row {
    let is_unmeasured = energy.quality.iter().any(|r| matches!(r, Reason::RunFailed | Reason::NoEnergySource));
    let source = match run.source {
        Origin::Simulated => EnergySource::Simulated,
        Origin::Measured if is_unmeasured => EnergySource::None,
        Origin::Measured if energy.is_power => EnergySource::Power,
        Origin::Measured => EnergySource::Counter,
    };
    let is_prefill = phase == Phase::Prefill;
    Row {
        line: 0,
        run_id: run.run_id.clone(),
        phase,
        model: run.model.clone(),
        architecture: run.architecture.clone(),
        engine: run.engine.clone(),
        precision: run.precision.clone(),
        gpu_model: run.gpu_model.clone(),
        num_gpus: run.num_gpus,
        tensor_parallel: run.tensor_parallel,
        pipeline_parallel: run.pipeline_parallel,
        data_parallel: run.data_parallel,
        expert_parallel: run.expert_parallel,
        batch_size: run.batch_size,
        input_tokens: run.input_tokens,
        // The batches of the prefill window ran with one output token, whatever the point asks for.
        output_tokens: if is_prefill { 1.0 } else { run.output_tokens },
        energy_j: energy.energy.map(|(e, _)| e),
        energy_j_std: energy.energy.map(|(_, std)| std),
        duration_s: energy.duration_s,
        mean_ttft_s: run.mean_ttft_s,
        mean_tpot_s: if is_prefill { None } else { run.mean_tpot_s },
        kv_capacity_tokens: run.kv_capacity_tokens,
        params: run.params,
        active_params: run.active_params,
        n_layers: run.n_layers,
        hidden_size: run.hidden_size,
        kv_bytes_per_token: run.kv_bytes_per_token,
        num_experts: run.num_experts,
        experts_per_token: run.experts_per_token,
        bytes_per_weight: run.bytes_per_weight,
        gpu_memory_bytes: run.gpu_memory_bytes,
        quality: energy.quality.iter().map(ToString::to_string).collect(),
        source,
        method: None,
        idle_power_w: None,
    }
}

mod part;
#[cfg(test)]
mod tests;
