//! What `record` prints.

use std::collections::BTreeSet;
use std::fmt::Write;

use energylens::agent::Recording;
use energylens::dataset::cost::{Figure, Spread, above_idle, total};
use energylens::dataset::interval::{Window, WindowEnergy};
use energylens::dataset::quality::{MAX_RELATIVE_STD, MIN_EDGES_INSIDE, Reason};
use energylens::source::{Device, Scope};
use serde_json::{Value, json};

use crate::cli::output::{plus_minus, short};
use crate::cli::{doctor, output};

/// Energies of all devices in one window.
pub(super) type Energies = Vec<Result<WindowEnergy, Reason>>;

/// One run of the command.
pub(super) struct Run {
    pub(super) window: Window,
    pub(super) code: u8,
    pub(super) energies: Energies,
}

/// All there is to print.
pub(super) struct Measured<'a> {
    pub(super) command: &'a [String],
    pub(super) devices: &'a [Device],
    pub(super) runs: Vec<Run>,
    pub(super) idle: Option<(Window, Energies)>,
    pub(super) counts_failures: bool,
    /// Runs that were asked for.
    pub(super) asked: u32,
    pub(super) recording: &'a Recording,
}

/// What the runs took on one device.
struct Cost {
    energy_j: Spread,
    /// What the counter leaves open in one run, mean over the runs.
    std_j: f64,
    mean_power_w: f64,
    above_idle: Option<Figure>,
    quality: BTreeSet<Reason>,
}

impl Measured<'_> {
    /// The runs that count: those that succeeded, all where failures are ignored or nothing else is there.
    fn counted(&self) -> Vec<&Run> {
        let good: Vec<&Run> = self.runs.iter().filter(|r| r.code == 0 || self.counts_failures).collect();
        if good.is_empty() { self.runs.iter().collect() } else { good }
    }

    fn duration_s(&self) -> Option<Spread> {
        Spread::of(&self.counted().iter().map(|r| r.window.duration_s()).collect::<Vec<_>>())
    }

    /// Mean over the runs; the first reason if any has no energy.
    fn cost(&self, device: usize) -> Result<Cost, Reason> {
        let runs = self.counted();
        let idle = self.idle.as_ref().and_then(|(window, energies)| {
            energies.get(device)?.as_ref().ok().map(|energy| (window.duration_s(), energy))
        });
        let (mut joules, mut above, mut above_std) = (Vec::new(), Vec::new(), 0.0);
        let (mut std_j, mut seconds, mut quality) = (0.0, 0.0, BTreeSet::new());
        for run in &runs {
            let energy = run.energies.get(device).ok_or(Reason::NoEnergySource)?.as_ref().map_err(|reason| *reason)?;
            joules.push(energy.energy_j);
            std_j += energy.std_j;
            seconds += run.window.duration_s();
            quality.extend(energy.quality.iter().copied());
            if let Some((idle_s, idle)) = idle {
                let figure = above_idle(energy, run.window.duration_s(), idle, idle_s);
                above.push(figure.value);
                above_std += figure.std;
            }
        }
        let energy_j = Spread::of(&joules).ok_or(Reason::NoEnergySource)?;
        let n = runs.len() as f64;
        let above_idle =
            Spread::of(&above).map(|s| Figure { value: s.mean, std: s.sd.unwrap_or(0.0).max(above_std / n) });
        let mean_power_w = joules.iter().sum::<f64>() / seconds;
        Ok(Cost { energy_j, std_j: std_j / n, mean_power_w, above_idle, quality })
    }

    /// Sums over devices of one kind from one source: what may be added without counting anything twice.
    fn totals(&self) -> Vec<(String, Figure)> {
        let mut totals = Vec::new();
        for (scope, name) in [(Scope::Gpu, "GPUs"), (Scope::Module, "modules"), (Scope::CpuPackage, "CPU packages")] {
            let mut kinds: Vec<&str> = Vec::new();
            for device in self.devices.iter().filter(|d| d.scope == scope) {
                let kind = source_of(device);
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            for kind in kinds {
                let of_kind = |d: &Device| d.scope == scope && source_of(d) == kind;
                let members: Vec<usize> =
                    self.devices.iter().enumerate().filter(|(_, d)| of_kind(d)).map(|(i, _)| i).collect();
                let runs = self.counted();
                let sums: Option<Vec<Figure>> = runs
                    .iter()
                    .map(|run| {
                        let energies: Option<Vec<&WindowEnergy>> =
                            members.iter().map(|i| run.energies.get(*i)?.as_ref().ok()).collect();
                        energies.map(total)
                    })
                    .collect();
                let Some(sums) = sums.filter(|_| members.len() > 1) else { continue };
                let spread = Spread::of(&sums.iter().map(|s| s.value).collect::<Vec<_>>());
                if let Some(Spread { mean, sd }) = spread {
                    let std = sd.unwrap_or_else(|| sums.iter().map(|s| s.std).sum());
                    totals.push((format!("all {} {name} ({kind})", members.len()), Figure { value: mean, std }));
                }
            }
        }
        totals
    }

    /// The table and what is to be said of it.
    pub(super) fn to_text(&self) -> String {
        let is_repeated = self.runs.len() > 1;
        let energy_header = if is_repeated { "energy J, mean ± sd" } else { "energy J" };
        let mut headers = vec!["device", "name", energy_header];
        headers.extend(is_repeated.then_some("± of one"));
        headers.push("mean W");
        headers.extend(self.idle.is_some().then_some("above idle J"));
        headers.push("");
        let numeric: Vec<usize> = (2..headers.len() - 1).collect();
        let mut table = output::table(&headers, &numeric);
        for (i, device) in self.devices.iter().enumerate() {
            let mut row = vec![device.id.clone(), device.name.clone()];
            match self.cost(i) {
                Ok(cost) => {
                    let std_j = if is_repeated { cost.energy_j.sd } else { Some(cost.std_j) };
                    let mean_j = cost.energy_j.mean;
                    row.push(std_j.map_or_else(|| short(mean_j), |std_j| plus_minus(mean_j, Some(std_j))));
                    row.extend(is_repeated.then(|| short(cost.std_j)));
                    row.push(short(cost.mean_power_w));
                    let above = || cost.above_idle.map_or_else(|| "-".into(), |f| plus_minus(f.value, Some(f.std)));
                    row.extend(self.idle.is_some().then(above));
                    row.push(cost.quality.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
                }
                Err(reason) => {
                    row.resize(headers.len() - 1, "-".to_owned());
                    row.push(format!("{reason}: {}", reason.advice()));
                }
            }
            table.add_row(row);
        }
        let mut text = format!("\n{}\n\n", table.trim_fmt());
        for (name, figure) in self.totals() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name}: {} J", plus_minus(figure.value, Some(figure.std)));
        }
        if let Some((window, _)) = &self.idle {
            let seconds = short(window.duration_s());
            let _ = writeln!(text, "above idle: less the mean power of the {seconds} s before, over the same time");
        }
        if let Some(duration) = self.duration_s() {
            let runs = if is_repeated { format!(" (mean of {} runs)", self.counted().len()) } else { String::new() };
            let label = output::simulated(self.devices);
            let _ = writeln!(text, "{} s{runs}{label}; {}", short(duration.mean), doctor::summary(self.recording));
        }
        for note in self.notes() {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = BTreeSet::new();
        let doubts: BTreeSet<Reason> =
            (0..self.devices.len()).filter_map(|i| self.cost(i).ok()).flat_map(|cost| cost.quality).collect();
        for doubt in doubts {
            notes.insert(match doubt {
                Reason::WindowShorterThanRefreshes | Reason::TooUncertain => {
                    let least = self.shortest_s().map_or_else(String::new, |s| format!(" ({} s would do)", short(s)));
                    format!("the command is too short for these counters{least}; repeat its work in a loop and divide")
                }
                other => other.advice().to_owned(),
            });
        }
        let failed = self.runs.iter().filter(|r| r.code != 0).count();
        if failed > 0 && self.runs.len() > 1 {
            let counted = if self.counts_failures { "they are counted" } else { "left out of the means" };
            notes.insert(format!("{failed} of {} runs failed; {counted}", self.runs.len()));
        }
        if (self.runs.len() as u64) < u64::from(self.asked) {
            notes.insert(format!("stopped after {} of {} runs", self.runs.len(), self.asked));
        }
        if self.runs.len() > 1 && self.counted().len() < 2 {
            notes.insert("one run succeeded; a standard deviation needs two".to_owned());
        }
        notes.into_iter().collect()
    }

    /// The shortest window in which every doubted device would have a figure.
    fn shortest_s(&self) -> Option<f64> {
        let recording = self.recording;
        let seconds = (recording.t_end_mono_ns - recording.t_begin_mono_ns) as f64 / 1e9;
        let of_device = |(i, device): (usize, &Device)| -> Option<f64> {
            let cost = self.cost(i).ok()?;
            let is_short = cost.quality.contains(&Reason::WindowShorterThanRefreshes);
            let is_vague = cost.quality.contains(&Reason::TooUncertain);
            let watched = recording.devices.iter().find(|d| d.device == device.id)?;
            // A period that was not learnt in so short a time is guessed from how often the counter moved.
            let period_s = watched.refresh_period_s.or((watched.edges > 0).then(|| seconds / watched.edges as f64))?;
            let for_edges_s = (MIN_EDGES_INSIDE + 1) as f64 * period_s;
            let for_std_s = cost.std_j / (MAX_RELATIVE_STD * cost.mean_power_w);
            match (is_short, is_vague) {
                (false, false) => None,
                (_, true) if cost.mean_power_w > 0.0 => Some(for_edges_s.max(for_std_s)),
                _ => Some(for_edges_s),
            }
        };
        self.devices.iter().enumerate().filter_map(of_device).max_by(f64::total_cmp)
    }

    /// The same for programs, every run listed.
    pub(super) fn to_json(&self) -> Value {
        let devices: Vec<Value> = (0..self.devices.len()).filter_map(|i| self.device_json(i)).collect();
        let run = |run: &Run| {
            let devices = self.devices.iter().zip(&run.energies).map(|(device, energy)| match energy {
                Ok(e) => json!({
                    "device": device.id, "energy_j": e.energy_j, "energy_j_std": e.std_j,
                    "mean_power_w": e.energy_j / run.window.duration_s(), "quality": words(&e.quality),
                }),
                Err(reason) => json!({ "device": device.id, "energy_j": null, "quality": [reason.to_string()] }),
            });
            json!({
                "duration_s": run.window.duration_s(), "exit_status": run.code,
                "t_begin_mono_ns": run.window.t_begin_ns, "t_end_mono_ns": run.window.t_end_ns,
                "devices": devices.collect::<Vec<_>>(),
            })
        };
        let totals = self
            .totals()
            .into_iter()
            .map(|(name, f)| json!({ "of": name, "energy_j": f.value, "energy_j_std": f.std }));
        let duration = self.duration_s();
        json!({
            "command": self.command,
            "duration_s": duration.map(|d| d.mean),
            "duration_s_sd": duration.and_then(|d| d.sd),
            "devices": devices,
            "totals": totals.collect::<Vec<_>>(),
            "idle_s": self.idle.as_ref().map(|(window, _)| window.duration_s()),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
            "notes": self.notes(),
            "recording": self.recording,
        })
    }

    fn device_json(&self, i: usize) -> Option<Value> {
        let device = self.devices.get(i)?;
        let idle_power_w = self
            .idle
            .as_ref()
            .and_then(|(window, energies)| Some(energies.get(i)?.as_ref().ok()?.energy_j / window.duration_s()));
        Some(match self.cost(i) {
            Ok(cost) => json!({
                "device": device.id, "name": device.name, "scope": device.scope, "source": device.energy_source,
                "energy_j": cost.energy_j.mean, "energy_j_std": cost.std_j, "energy_j_sd": cost.energy_j.sd,
                "mean_power_w": cost.mean_power_w, "idle_power_w": idle_power_w,
                "above_idle_j": cost.above_idle.map(|f| f.value), "above_idle_j_std": cost.above_idle.map(|f| f.std),
                "quality": words(&cost.quality.iter().copied().collect::<Vec<_>>()),
            }),
            Err(reason) => json!({
                "device": device.id, "name": device.name, "scope": device.scope, "source": device.energy_source,
                "energy_j": null, "quality": [reason.to_string()],
            }),
        })
    }
}

/// What stands before the colon of an identifier: devices of one source do not overlap.
fn source_of(device: &Device) -> &str {
    device.id.split(':').next().unwrap_or_default()
}

fn words(quality: &[Reason]) -> Vec<String> {
    quality.iter().map(ToString::to_string).collect()
}
