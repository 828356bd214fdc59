//! Designs: from axes to points.
//!
//! A *deployment* is what a server is started with (model, GPU, precision, degrees); a *candidate* is a deployment and
//! the sizes of a batch. A candidate is feasible if its GPUs are there, its weights and the KV cache of at least one
//! whole sequence fit, every replica gets a sequence, and the sweep's `where` says so.

use sha2::{Digest, Sha256};

use self::hypercube::Hypercube;
use self::left_out::Reason;
pub use self::left_out::{Counted, LeftOut};
pub use self::optimal::MOST_OPTIMAL_POINTS;
use super::Error;
use super::adaptive::Adaptive;
use super::axis::{Axes, Design, Levels, Sweep};
use super::plan::{Point, hex};
use crate::card::{GpuCard, ModelCard};

/// Most points, or combinations looked at one by one.
pub const MOST_POINTS: usize = 1_000_000;
/// Share of a GPU's memory that engines use for weights and KV cache (vLLM's default).
const USABLE_MEMORY: f64 = 0.9;

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Model, at this precision.
    pub model: ModelCard,
    /// GPU.
    pub gpu: GpuCard,
    /// Numeric format of the weights.
    pub precision: String,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: u32,
    /// Data-parallel degree.
    pub data_parallel: u32,
    /// Tokens of KV cache that one replica has room for; infinite for models without one.
    pub kv_capacity_tokens: f64,
}

/// A deployment and the sizes of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What a server is started with.
    pub deployment: &'a Deployment,
    /// Sequences in flight.
    pub batch_size: u32,
    /// Input tokens per sequence.
    pub input_tokens: u32,
    /// Output tokens per sequence.
    pub output_tokens: u32,
}

type Accept<'f> = dyn FnMut(&Candidate<'_>) -> Result<bool, Error> + 'f;

/// What a sweep's axes and its design come to.
#[derive(Debug, Clone)]
pub struct Laid {
    /// The points, sorted; their order says nothing about the order of the runs. The candidates, where the design is
    /// adaptive.
    pub points: Vec<Point>,
    /// The order of the candidates, where the design is adaptive.
    pub adaptive: Option<Adaptive>,
    /// What cannot run or is not wanted.
    pub left_out: LeftOut,
}

/// The points of a sweep.
pub fn points(sweep: &Sweep, accept: &mut Accept<'_>) -> Result<Laid, Error> {
    let (deployments, mut left_out) = deployments(&sweep.axes, sweep.workload.gpus())?;
    let chosen = match sweep.design {
        Design::Factorial => factorial(&sweep.axes, &deployments, &mut left_out, accept)?,
        Design::LatinHypercube { points, prefill_share } => {
            Hypercube::new(&sweep.axes, &deployments, accept).draw(points, prefill_share, sweep.seed)?
        }
        Design::Adaptive(rule) => {
            adaptive::candidates(rule, &sweep.axes, &deployments, &mut left_out, accept, sweep.seed)?
        }
        Design::DOptimal { points } => optimal::draw(&sweep.axes, &deployments, accept, points, sweep.seed)?,
    };
    // Cards are hashed once per deployment: hashing them for each of 100,000 points would take seconds.
    let stems: Vec<String> = deployments.iter().map(|d| stem(d, sweep.workload.engine())).collect();
    let mut chosen: Vec<Choice> = chosen;
    chosen.sort_unstable();
    let adaptive = match sweep.design {
        Design::Adaptive(rule) => Some(adaptive::lay_out(rule, &chosen, &deployments)?),
        _ => None,
    };
    let points = chosen.iter().filter_map(|c| point(c, &deployments, &stems, sweep.workload.engine())).collect();
    Ok(Laid { points, adaptive, left_out })
}

/// Deployment number, batch size, input tokens, output tokens. Sorts as points do.
type Choice = (u32, u32, u32, u32);

fn candidate<'a>(choice: Choice, deployments: &'a [Deployment]) -> Option<Candidate<'a>> {
    let deployment = deployments.get(choice.0 as usize)?;
    Some(Candidate { deployment, batch_size: choice.1, input_tokens: choice.2, output_tokens: choice.3 })
}

/// Everything of a deployment that belongs to a point's identity, as hash.
fn stem(d: &Deployment, engine: &str) -> String {
    // Serialising plain numbers and texts cannot fail; an empty text would still be one and the same identity.
    let cards = serde_json::to_string(&(&d.model, &d.gpu)).unwrap_or_default();
    let degrees = format!("{}|{}|{}", d.tensor_parallel, d.pipeline_parallel, d.data_parallel);
    hex(&Sha256::digest(format!("{cards}|{engine}|{}|{degrees}", d.precision)), 32)
}

fn point(choice: &Choice, deployments: &[Deployment], stems: &[String], engine: &str) -> Option<Point> {
    let c = candidate(*choice, deployments)?;
    let d = c.deployment;
    let identity = format!("{}|{}|{}|{}", stems.get(choice.0 as usize)?, c.batch_size, c.input_tokens, c.output_tokens);
    Some(Point {
        point_id: hex(&Sha256::digest(identity), 12),
        model: d.model.clone(),
        gpu: d.gpu.clone(),
        engine: engine.to_owned(),
        precision: d.precision.clone(),
        tensor_parallel: d.tensor_parallel,
        pipeline_parallel: d.pipeline_parallel,
        data_parallel: d.data_parallel,
        batch_size: c.batch_size,
        input_tokens: c.input_tokens,
        output_tokens: c.output_tokens,
    })
}

/// Bytes of one weight in the named format; `None` for a format this program does not know.
pub fn precision_bytes(precision: &str) -> Option<f64> {
    Some(match precision {
        "fp32" | "tf32" => 4.0,
        "bf16" | "fp16" => 2.0,
        "fp8" | "int8" => 1.0,
        // Four bits, and a 16-bit scale and a zero point for every 128 weights.
        "int4" => 0.5 + 2.5 / 128.0,
        // Four bits, and an 8-bit scale for every 16 weights.
        "fp4" => 0.5 + 1.0 / 16.0,
        _ => return None,
    })
}

/// Formats that [`precision_bytes`] knows.
pub const PRECISIONS: [&str; 8] = ["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"];

/// What to call the format of a card whose script names none.
fn precision_of(card: &ModelCard) -> &'static str {
    match card.bytes_per_weight {
        b if b >= 3.0 => "fp32",
        b if b >= 1.5 => "bf16",
        b if b >= 0.9 => "fp8",
        _ => "int4",
    }
}

/// All deployments that fit, sorted by model, GPU, precision and degrees, and those that do not.
fn deployments(axes: &Axes, gpus: u32) -> Result<(Vec<Deployment>, LeftOut), Error> {
    let grid = |levels: &Levels| levels.grid().unwrap_or_default();
    let (t, p, d) = (grid(&axes.tensor_parallel), grid(&axes.pipeline_parallel), grid(&axes.data_parallel));
    let precisions = axes.precision.len().max(1);
    let combinations: f64 = [axes.model.len(), axes.gpu_model.len(), precisions, t.len(), p.len(), d.len()]
        .iter()
        .map(|n| *n as f64)
        .product();
    if combinations > MOST_POINTS as f64 {
        return Err(Error::TooMany { found: combinations, limit: MOST_POINTS });
    }
    let mut fitting = Vec::new();
    let mut left_out = LeftOut { of: combinations as u64, what: Counted::Deployments, ..LeftOut::default() };
    let mut nearest: Option<(f64, String)> = None;
    for model in &axes.model {
        for precision in 0..precisions {
            let mut model = model.clone();
            let precision = match axes.precision.get(precision) {
                Some(name) => {
                    model.bytes_per_weight = precision_bytes(name).unwrap_or(model.bytes_per_weight);
                    name.clone()
                }
                None => precision_of(&model).to_owned(),
            };
            for gpu in &axes.gpu_model {
                for (t, p, d) in t.iter().flat_map(|t| p.iter().flat_map(|p| d.iter().map(|d| (*t, *p, *d)))) {
                    let lack = match deployment(&model, gpu, &precision, (t, p, d), gpus) {
                        Ok(deployment) => {
                            fitting.push(deployment);
                            continue;
                        }
                        Err(lack) => lack,
                    };
                    left_out.add(lack.reason, 1);
                    if nearest.as_ref().is_none_or(|n| lack.factor < n.0) {
                        nearest = Some((lack.factor, lack.why));
                    }
                }
            }
        }
    }
    if fitting.is_empty() {
        let nearest = nearest.map_or_else(|| "an axis has no value".to_owned(), |n| n.1);
        return Err(Error::NothingFits { combinations: combinations as usize, nearest });
    }
    fitting.sort_by(|a, b| {
        let key = |d: &Deployment| (d.tensor_parallel, d.pipeline_parallel, d.data_parallel);
        (&a.model.model, &a.gpu.gpu_model, &a.precision)
            .cmp(&(&b.model.model, &b.gpu.gpu_model, &b.precision))
            .then(key(a).cmp(&key(b)))
    });
    Ok((fitting, left_out))
}

/// What a deployment lacks.
struct Lack {
    reason: Reason,
    /// By which factor it misses.
    factor: f64,
    why: String,
}

/// One deployment, or what it lacks.
fn deployment(
    model: &ModelCard,
    gpu: &GpuCard,
    precision: &str,
    (t, p, d): (u32, u32, u32),
    gpus: u32,
) -> Result<Deployment, Lack> {
    let lacks = |reason, factor, why| Err(Lack { reason, factor, why });
    let what = || format!("{} with tensor_parallel {t}, pipeline_parallel {p}, data_parallel {d}", model.model);
    let needed = f64::from(t) * f64::from(p) * f64::from(d);
    if needed > f64::from(gpus) {
        let why = format!("{} needs {needed} GPUs of {gpus}", what());
        return lacks(Reason::Gpus, needed / f64::from(gpus.max(1)), why);
    }
    if f64::from(p) > model.n_layers {
        let why = format!("{} has more stages than the model has layers ({})", what(), model.n_layers);
        return lacks(Reason::Layers, f64::from(p) / model.n_layers.max(1.0), why);
    }
    if model.hidden_size % f64::from(t) != 0.0 {
        let why = format!("{} cannot be cut: hidden_size {} is no multiple of it", what(), model.hidden_size);
        return lacks(Reason::HiddenSize, f64::INFINITY, why);
    }
    let usable = f64::from(t) * f64::from(p) * gpu.memory_bytes * USABLE_MEMORY;
    let weights = model.weight_bytes();
    if weights >= usable {
        let gib = crate::units::BYTES_PER_GIB;
        let why = format!(
            "{} needs {:.0} GiB for weights; {:.0} GiB are usable on {} {}",
            what(),
            weights / gib,
            usable / gib,
            t * p,
            gpu.gpu_model
        );
        return lacks(Reason::Memory, weights / usable, why);
    }
    let kv_capacity_tokens =
        if model.kv_bytes_per_token > 0.0 { (usable - weights) / model.kv_bytes_per_token } else { f64::INFINITY };
    Ok(Deployment {
        model: model.clone(),
        gpu: gpu.clone(),
        precision: precision.to_owned(),
        tensor_parallel: t,
        pipeline_parallel: p,
        data_parallel: d,
        kv_capacity_tokens,
    })
}

/// Every combination of levels that is feasible. `left_out` counts deployments, and then combinations of all axes.
fn factorial(
    axes: &Axes,
    deployments: &[Deployment],
    left_out: &mut LeftOut,
    accept: &mut Accept<'_>,
) -> Result<Vec<Choice>, Error> {
    let grid = |levels: &Levels| levels.grid().unwrap_or_default();
    let (batch, input, output) = (grid(&axes.batch_size), grid(&axes.input_tokens), grid(&axes.output_tokens));
    let found = [deployments.len(), batch.len(), input.len(), output.len()].iter().map(|n| *n as f64).product::<f64>();
    if found > MOST_POINTS as f64 {
        return Err(Error::TooMany { found, limit: MOST_POINTS });
    }
    left_out.of_sizes((batch.len() * input.len() * output.len()) as u64);
    let mut chosen = Vec::new();
    for d in 0..deployments.len() as u32 {
        for (b, s, m) in batch.iter().flat_map(|b| input.iter().flat_map(|s| output.iter().map(|m| (*b, *s, *m)))) {
            let choice = (d, b, s, m);
            let Some(c) = candidate(choice, deployments) else { continue };
            match refusal(&c, accept)? {
                Some(reason) => left_out.add(reason, 1),
                None => chosen.push(choice),
            }
        }
    }
    if chosen.is_empty() {
        let feasible = "0".to_owned();
        return Err(Error::TooFewFeasible { asked: 1, kind: "point at least", feasible, left_out: *left_out });
    }
    Ok(chosen)
}

/// Why a point is left out; `where` is asked last.
fn refusal(c: &Candidate<'_>, accept: &mut Accept<'_>) -> Result<Option<Reason>, Error> {
    match c.obstacle() {
        Some(reason) => Ok(Some(reason)),
        None => Ok((!accept(c)?).then_some(Reason::Filtered)),
    }
}

mod adaptive;
mod hypercube;
mod left_out;
mod optimal;
#[cfg(test)]
mod tests;
