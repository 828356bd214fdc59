//! The plan: points, runs and their identifiers.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use super::adaptive::Adaptive;
use super::axis::Sweep;
use super::design::{self, Candidate, LeftOut};
use super::sbatch::SlurmSpec;
use super::script::Script;
use super::workload::WorkloadSpec;
use crate::card::{GpuCard, ModelCard};

/// Far more than anybody writes; a device or a log given by mistake ends here.
const LONGEST_SCRIPT_BYTES: u64 = 1 << 20;

/// One configuration to be measured. Field names are the Lua axes and the table columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Hash of everything below, 12 hex digits.
    pub point_id: String,
    /// Model.
    pub model: ModelCard,
    /// GPU.
    pub gpu: GpuCard,
    /// Inference engine.
    pub engine: String,
    /// Numeric format of the weights.
    pub precision: String,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: u32,
    /// Data-parallel degree.
    pub data_parallel: u32,
    /// Sequences in flight.
    pub batch_size: u32,
    /// Input tokens per sequence, vision tokens included.
    pub input_tokens: u32,
    /// Output tokens per sequence; 1 is a prefill-only point.
    pub output_tokens: u32,
}

impl Point {
    /// GPUs that the point occupies.
    pub fn num_gpus(&self) -> u32 {
        self.tensor_parallel * self.pipeline_parallel * self.data_parallel
    }

    /// Whether nothing is decoded: the whole batch is the prefill.
    pub fn is_prefill_only(&self) -> bool {
        self.output_tokens == 1
    }

    /// Whether one deployment can serve both points.
    pub fn shares_deployment(&self, other: &Self) -> bool {
        self.tensor_parallel == other.tensor_parallel
            && self.pipeline_parallel == other.pipeline_parallel
            && self.data_parallel == other.data_parallel
            && self.engine == other.engine
            && self.precision == other.precision
            && self.gpu == other.gpu
            && self.model == other.model
    }
}

/// One repeat of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// `<point_id>-<repeat>`.
    pub run_id: String,
    /// Index into [`Plan::points`].
    pub point: usize,
    /// Which repeat, from 0.
    pub repeat: u32,
}

/// How each run is measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Batches are repeated until a phase's window is at least this long: a counter moves every 20 to 100 ms, and its
    /// edges blur both ends.
    pub min_window_s: f64,
    /// Idle time before each run, recorded as a phase of its own.
    pub idle_s: f64,
    /// Batches run and not counted before the first window.
    pub warmup_batches: u32,
    /// Most batches in one window, however short they are.
    pub max_batches: u32,
    /// Idle time after something was started anew, before the run begins, not recorded as a phase.
    #[serde(default)]
    pub settle_s: f64,
    /// A point is repeated beyond its `repeats` until the standard uncertainty of its mean energies is this small.
    #[serde(default)]
    pub relative_std: Option<f64>,
    /// ... but no more often than this.
    #[serde(default)]
    pub max_repeats: u32,
}

impl Measure {
    /// Repeats that are laid out for each point; those beyond `repeats` are carried out where they are needed.
    pub fn most_repeats(&self, repeats: u32) -> u32 {
        self.relative_std.map_or(repeats, |_| self.max_repeats.max(repeats))
    }
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            min_window_s: 5.0,
            idle_s: 1.0,
            warmup_batches: 1,
            max_batches: 10_000,
            settle_s: 0.0,
            relative_std: None,
            max_repeats: 0,
        }
    }
}

/// Everything a sweep will do, before it does any of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The sweep's name.
    pub name: String,
    /// SHA-256 of the script, hex.
    pub script_sha256: String,
    /// Seed of the design, the order and the simulated noise.
    pub seed: u64,
    /// How often each point runs at least; [`Measure::relative_std`] may ask for more.
    pub repeats: u32,
    /// How each run is measured.
    pub measure: Measure,
    /// What the runs run on.
    pub workload: WorkloadSpec,
    /// Points; the candidates, where the design is adaptive.
    pub points: Vec<Point>,
    /// Runs, in the order in which they will be carried out; of an adaptive design those of the start, behind which come
    /// those of the points that are chosen.
    pub runs: Vec<Run>,
    /// The rule by which points are chosen as the sweep goes, where the design is adaptive.
    pub adaptive: Option<Adaptive>,
    /// What the axes span and the points are not, and why. What the sweep does does not depend on it.
    pub left_out: LeftOut,
    /// Where they run, if Slurm is asked. What they do does not depend on it.
    pub slurm: Option<SlurmSpec>,
}

impl Plan {
    /// The plan of the script at `path`. What the script prints goes to `log`, line by line.
    ///
    /// Model configurations that the script names are looked for beside it; it can read nothing else and write nothing.
    pub fn from_script(path: &Path, log: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let fail = |source| Error::Io { path: path.to_owned(), verb: "read", source };
        let mut source = String::new();
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(LONGEST_SCRIPT_BYTES + 1).read_to_string(&mut source).map_err(fail)?;
        if source.len() as u64 > LONGEST_SCRIPT_BYTES {
            let reason = format!("it has more than {LONGEST_SCRIPT_BYTES} bytes; expected a Lua script");
            return Err(fail(std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason)));
        }
        let name = path.file_name().map_or_else(|| "sweep.lua".into(), |n| n.to_string_lossy());
        Self::from_source(&name, &source, path.parent().unwrap_or(Path::new(".")), log)
    }

    /// The plan of a script already in memory; `file_name` is what its messages call it.
    pub fn from_source(
        file_name: &str,
        source: &str,
        directory: &Path,
        log: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let script = Script::evaluate(file_name, source, directory, log)?;
        let result = Self::lay_out(script.sweep(), script_hash(source), &mut |c| script.accepts(c));
        script.drain_log(log);
        let result = result.and_then(|plan| script.check_answers().map(|()| plan));
        // What `where` prints it has said once.
        script.drain_log(&mut |_| ());
        let mut plan = result.map_err(|error| script.placed(error))?;
        if let WorkloadSpec::Script(spec) = &mut plan.workload {
            spec.code_sha256 = Some(code::hash(source));
        }
        Ok(plan)
    }

    /// The plan that the campaign in `dir` began with.
    pub fn of_campaign(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("plan.json");
        let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), verb: "read", source })?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Foreign {
            line: source.line(),
            path,
            expected: "plan",
            source,
        })
    }

    /// Lays out a sweep; `accept` is its `where`.
    pub fn lay_out(
        sweep: &Sweep,
        script_sha256: String,
        accept: &mut dyn FnMut(&Candidate<'_>) -> Result<bool, Error>,
    ) -> Result<Self, Error> {
        let design::Laid { points, adaptive, left_out } = design::points(sweep, accept)?;
        sweep.workload.check(&points).map_err(Error::Workload)?;
        let mut by_id: HashMap<&str, usize> = HashMap::with_capacity(points.len());
        for (second, point) in points.iter().enumerate() {
            if let Some(first) = by_id.insert(&point.point_id, second) {
                return Err(Error::SameIdentifier { point_id: point.point_id.clone(), first, second });
            }
        }
        let mut first: Vec<usize> = match &adaptive {
            Some(adaptive) => adaptive.start().to_vec(),
            None => (0..points.len()).collect(),
        };
        first.sort_unstable();
        let runs = ordered_runs(&points, &first, sweep.measure.most_repeats(sweep.repeats), sweep.seed);
        Ok(Self {
            name: sweep.name.clone(),
            script_sha256,
            seed: sweep.seed,
            repeats: sweep.repeats,
            measure: sweep.measure,
            workload: sweep.workload.clone(),
            points,
            runs,
            adaptive,
            left_out,
            slurm: sweep.slurm.clone(),
        })
    }

    /// The plan of some of the runs, given by their places in [`runs`](Self::runs), with the points that they need.
    ///
    /// `salt` keeps the simulated noise of parts that are carried out side by side apart.
    pub fn part(&self, runs: &[usize], salt: u64) -> Self {
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut points = Vec::new();
        let mut chosen = Vec::new();
        for run in runs.iter().filter_map(|&run| self.runs.get(run)) {
            let Some(point) = self.points.get(run.point) else { continue };
            let place = *places.entry(run.point).or_insert_with(|| {
                points.push(point.clone());
                points.len() - 1
            });
            chosen.push(Run { point: place, ..run.clone() });
        }
        Self {
            name: self.name.clone(),
            script_sha256: self.script_sha256.clone(),
            seed: self.seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            repeats: self.repeats,
            measure: self.measure,
            workload: self.workload.clone(),
            points,
            runs: chosen,
            // Its runs are laid out: nothing is left to be chosen.
            adaptive: None,
            left_out: self.left_out,
            slurm: None,
        }
    }

    /// What is different in `other`, in a few words; `None` if it does the same. The script's text may differ, unless it
    /// carries out the runs itself: then only its comments and its `slurm` may.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, a: String, b: String| {
            if a != b {
                found.push(format!("{what} {a} -> {b}"));
            }
        };
        compare("name", self.name.clone(), other.name.clone());
        compare("seed", self.seed.to_string(), other.seed.to_string());
        compare("repeats", self.repeats.to_string(), other.repeats.to_string());
        let json = |value: serde_json::Result<String>| value.unwrap_or_default();
        compare("measure", json(serde_json::to_string(&self.measure)), json(serde_json::to_string(&other.measure)));
        let rule = |plan: &Self| json(serde_json::to_string(&plan.adaptive.as_ref().map(|a| a.rule)));
        compare("adaptive", rule(self), rule(other));
        let (mut own, mut others) = (self.workload.clone(), other.workload.clone());
        let does_the_same = match (&mut own, &mut others) {
            (WorkloadSpec::Script(own), WorkloadSpec::Script(others)) => {
                match (own.code_sha256.take(), others.code_sha256.take()) {
                    (Some(own), Some(others)) => own == others,
                    // A campaign that an earlier version began knows the whole text only.
                    _ => self.script_sha256 == other.script_sha256,
                }
            }
            _ => true,
        };
        compare("workload", json(serde_json::to_string(&own)), json(serde_json::to_string(&others)));
        if !does_the_same {
            found.push("the code of the script, whose `run` carries out the runs".to_owned());
        }
        let missing = |of: &Self, from: &Self| {
            let known: std::collections::HashSet<&str> = from.points.iter().map(|p| p.point_id.as_str()).collect();
            let mut gone = of.points.iter().filter(|p| !known.contains(p.point_id.as_str())).peekable();
            let example = gone.peek().map(|p| describe(p));
            (gone.count(), example)
        };
        for ((count, example), what) in [(missing(self, other), "points gone"), (missing(other, self), "new points")] {
            if let Some(example) = example {
                found.push(format!("{what}: {count} (such as {example})"));
            }
        }
        if found.is_empty() && self.runs != other.runs {
            found.push("the order of the runs".to_owned());
        }
        (!found.is_empty()).then(|| found.join("; "))
    }
}

/// A point in one line.
fn describe(p: &Point) -> String {
    format!(
        "{} on {} {}, tensor_parallel {} pipeline_parallel {} batch_size {} input_tokens {} output_tokens {}",
        p.model.model,
        p.num_gpus(),
        p.gpu.gpu_model,
        p.tensor_parallel,
        p.pipeline_parallel,
        p.batch_size,
        p.input_tokens,
        p.output_tokens
    )
}

/// Runs in blocks of one repeat each, so that drift over the hours falls on all points alike. Within a block the
/// deployments come in random order and each serves its points, in random order, before the next is started: a
/// restart costs minutes on a real server.
///
/// `chosen` are places of points, ascending.
fn ordered_runs(points: &[Point], chosen: &[usize], repeats: u32, seed: u64) -> Vec<Run> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0072_756e_735f_6f72);
    // Points are sorted, so those of one deployment are neighbours.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, point) in chosen.iter().filter_map(|&i| Some((i, points.get(i)?))) {
        match groups.last_mut().and_then(|g| g.last().copied().map(|last| (g, last))) {
            Some((group, last)) if points.get(last).is_some_and(|p| p.shares_deployment(point)) => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    let mut runs = Vec::with_capacity(chosen.len() * repeats as usize);
    for repeat in 0..repeats {
        groups.shuffle(&mut rng);
        for group in &mut groups {
            group.shuffle(&mut rng);
            runs.extend(group.iter().filter_map(|&point| {
                points.get(point).map(|p| Run { run_id: format!("{}-{repeat}", p.point_id), point, repeat })
            }));
        }
    }
    runs
}

/// What [`Plan::script_sha256`] is of a script's text.
pub(super) fn script_hash(source: &str) -> String {
    hex(&Sha256::digest(source.as_bytes()), 64)
}

/// The first `digits` hexadecimal digits of a hash.
pub(super) fn hex(hash: &[u8], digits: usize) -> String {
    let mut text: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    text.truncate(digits);
    text
}

mod code;
mod extent;
mod file;
#[cfg(test)]
mod tests;
