//! Phases that the measured command marks by itself: a marks socket of its own, and what each phase cost.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use energylens::agent::MarkSocket;
use energylens::dataset::interval::{Window, WindowEnergy};
use energylens::dataset::phases::device_energies;
use energylens::dataset::quality::Reason;
use energylens::schema::{MARKS, MarkEvent};
use energylens::source::Device;
use energylens::store::{Campaign, MarkRow, read_table};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::output::{self, plus_minus, short};
use crate::cli::service;

/// Only the command's own user marks here.
const OWN_USER: u32 = 0o600;

/// The socket that the command finds in `$ENERGYLENS_MARKS`.
pub(super) struct Phases {
    socket: MarkSocket,
    // The socket's directory: short, whatever the campaign's path is.
    _directory: TempDir,
}

impl Phases {
    /// Opens the socket; without one the command is measured all the same.
    pub(super) fn listen(campaign: &Campaign) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("energylens-").tempdir();
        let opened = directory.map_err(anyhow::Error::new).and_then(|directory| {
            let socket = service::take_marks(campaign, directory.path().join("marks.sock"), OWN_USER, None)?;
            Ok(Self { socket, _directory: directory })
        });
        opened.inspect_err(|e| output::say(&format!("note: the command cannot mark phases: {e:#}"))).ok()
    }

    /// What the command's environment gets beside ours.
    pub(super) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let run_id = std::env::var_os("ENERGYLENS_RUN_ID").unwrap_or_else(|| "record".into());
        vec![("ENERGYLENS_MARKS", self.socket.path().as_os_str().to_owned()), ("ENERGYLENS_RUN_ID", run_id)]
    }

    /// Seals the marks; says which were refused.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let counts = self.socket.counts().clone();
        self.socket.finish()?;
        for (why, n) in counts.refused().filter(|(_, n)| *n > 0) {
            eprintln!("note: {n} marks of the command were refused: {why}");
        }
        Ok(())
    }
}

/// What one phase cost over all its windows.
pub(super) struct PhaseCost {
    phase: String,
    windows: Vec<Window>,
    /// Device by device: joules and their uncertainty, or why there are none.
    energies: Vec<Result<(f64, f64), Reason>>,
}

/// The phases that were marked between two instants, and their energy.
pub(super) fn costs(dir: &Path, host: &str, devices: &[Device], span: Window) -> anyhow::Result<Vec<PhaseCost>> {
    let mut marks = Vec::new();
    for batch in read_table(dir, &MARKS)? {
        marks.extend(MarkRow::from_batch(&batch?)?);
    }
    marks.retain(|m| (span.t_begin_ns..=span.t_end_ns).contains(&m.t_mono_ns));
    let by_phase = windows(&marks);
    let all: Vec<Window> = by_phase.values().flatten().copied().collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = devices.iter().map(|d| d.id.clone()).collect();
    let mut energies = device_energies(dir, host, &ids, &all)?.into_iter();
    let cost = |(phase, windows): (String, Vec<Window>)| {
        let of_windows: Vec<_> = energies.by_ref().take(windows.len()).collect();
        let energies = (0..devices.len()).map(|device| sum(of_windows.iter().filter_map(|w| w.get(device)))).collect();
        PhaseCost { phase, windows, energies }
    };
    Ok(by_phase.into_iter().map(cost).collect())
}

/// Pairs of begin and end of the same run, phase by phase.
fn windows(marks: &[MarkRow]) -> BTreeMap<String, Vec<Window>> {
    let mut sorted: Vec<&MarkRow> = marks.iter().collect();
    // At one instant a phase ends before it begins anew.
    sorted.sort_by_key(|m| (m.t_mono_ns, m.event == MarkEvent::Begin));
    let mut begun: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut found: BTreeMap<String, Vec<Window>> = BTreeMap::new();
    for mark in sorted {
        let key = (mark.run_id.as_str(), mark.phase.as_str());
        match mark.event {
            MarkEvent::Begin => drop(begun.insert(key, mark.t_mono_ns)),
            MarkEvent::End => {
                if let Some(t_begin_ns) = begun.remove(&key).filter(|begin| *begin < mark.t_mono_ns) {
                    let window = Window { t_begin_ns, t_end_ns: mark.t_mono_ns };
                    found.entry(mark.phase.clone()).or_default().push(window);
                }
            }
        }
    }
    found
}

/// Phases of a kind alternate with others at their edges in the same way each time: what is mistaken about one window
/// is mistaken alike about all, so uncertainties add up. One window without a figure leaves none for the sum.
fn sum<'a>(windows: impl Iterator<Item = &'a Result<WindowEnergy, Reason>>) -> Result<(f64, f64), Reason> {
    windows.into_iter().try_fold((0.0, 0.0), |(energy_j, std_j), window| match window {
        Ok(e) => Ok((energy_j + e.energy_j, std_j + e.std_j)),
        Err(reason) => Err(*reason),
    })
}

impl PhaseCost {
    fn duration_s(&self) -> f64 {
        self.windows.iter().map(|w| w.duration_s()).sum()
    }
}

/// A table with a line per phase and device.
pub(super) fn to_text(costs: &[PhaseCost], devices: &[Device]) -> String {
    let mut table = output::table(&["phase", "times", "seconds", "device", "energy J", "mean W", ""], &[1, 2, 4, 5]);
    for cost in costs {
        for (device, energy) in devices.iter().zip(&cost.energies) {
            let (joules, watts, note) = match energy {
                Ok((energy_j, std_j)) => {
                    (plus_minus(*energy_j, Some(*std_j)), short(energy_j / cost.duration_s()), String::new())
                }
                Err(reason) => ("-".to_owned(), "-".to_owned(), reason.to_string()),
            };
            let (times, seconds) = (cost.windows.len().to_string(), short(cost.duration_s()));
            table.add_row([cost.phase.clone(), times, seconds, device.id.clone(), joules, watts, note]);
        }
    }
    format!("\n{}\n", table.trim_fmt())
}

/// The same for programs.
pub(super) fn to_json(costs: &[PhaseCost], devices: &[Device]) -> Value {
    let device = |(device, energy): (&Device, &Result<(f64, f64), Reason>)| match energy {
        Ok((energy_j, std_j)) => json!({ "device": device.id, "energy_j": energy_j, "energy_j_std": std_j }),
        Err(reason) => json!({ "device": device.id, "energy_j": null, "quality": [reason.to_string()] }),
    };
    let phase = |cost: &PhaseCost| {
        json!({
            "phase": cost.phase, "windows": cost.windows.len(), "duration_s": cost.duration_s(),
            "devices": devices.iter().zip(&cost.energies).map(device).collect::<Vec<_>>(),
        })
    };
    costs.iter().map(phase).collect()
}

#[cfg(test)]
mod tests {
    use energylens::schema::Origin;

    use super::*;

    fn mark(t_mono_ns: i64, run_id: &str, phase: &str, event: MarkEvent) -> MarkRow {
        let (run_id, phase) = (run_id.to_owned(), phase.to_owned());
        MarkRow { t_mono_ns, run_id, phase, event, source: Origin::Measured, uid: None, job_id: None, step_id: None }
    }

    #[test]
    fn begin_and_end_of_one_run_belong_together_and_what_is_left_alone_counts_nothing() {
        use MarkEvent::{Begin, End};
        let marks = [
            mark(10, "a", "prefill", Begin),
            mark(15, "b", "prefill", Begin),
            mark(20, "a", "prefill", End),
            mark(20, "a", "prefill", Begin),
            mark(40, "b", "prefill", End),
            mark(50, "a", "prefill", End),
            mark(60, "a", "decode", End),
            mark(70, "a", "warmup", Begin),
            mark(80, "a", "empty", Begin),
            mark(80, "a", "empty", End),
        ];
        let found = windows(&marks);
        let spans: Vec<_> = found["prefill"].iter().map(|w| (w.t_begin_ns, w.t_end_ns)).collect();
        assert_eq!(spans, [(10, 20), (15, 40), (20, 50)]);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn uncertainties_add_up_and_one_window_without_a_figure_leaves_none() {
        let energy = |energy_j, std_j| Ok(WindowEnergy { energy_j, std_j, edges_inside: 2, quality: Vec::new() });
        let good = [energy(10.0, 1.0), energy(20.0, 2.0)];
        assert_eq!(sum(good.iter()), Ok((30.0, 3.0)));
        let bad = [energy(10.0, 1.0), Err(Reason::CounterReset)];
        assert_eq!(sum(bad.iter()), Err(Reason::CounterReset));
    }
}
