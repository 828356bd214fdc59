//! The plan as JSON: cards once each, points by reference, so that 100,000 points stay readable.

use std::collections::HashMap;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Adaptive, LeftOut, Measure, Plan, Point, Run, SlurmSpec, WorkloadSpec};
use crate::card::{GpuCard, ModelCard};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    name: String,
    script_sha256: String,
    seed: u64,
    repeats: u32,
    measure: Measure,
    workload: WorkloadSpec,
    models: Vec<ModelCard>,
    gpus: Vec<GpuCard>,
    points: Vec<PointLine>,
    runs: Vec<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adaptive: Option<Adaptive>,
    #[serde(default)]
    left_out: LeftOut,
    #[serde(default)]
    slurm: Option<SlurmSpec>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PointLine {
    point_id: String,
    model: usize,
    gpu: usize,
    engine: String,
    precision: String,
    tensor_parallel: u32,
    pipeline_parallel: u32,
    data_parallel: u32,
    batch_size: u32,
    input_tokens: u32,
    output_tokens: u32,
}

/// Number of `card` in `cards`, put there if new; `by_name` keeps the search short.
fn number<'a, C: Clone + PartialEq>(
    card: &'a C,
    name: &'a str,
    cards: &mut Vec<C>,
    by_name: &mut HashMap<&'a str, Vec<usize>>,
) -> usize {
    let same_name = by_name.entry(name).or_default();
    if let Some(known) = same_name.iter().copied().find(|i| cards.get(*i) == Some(card)) {
        return known;
    }
    cards.push(card.clone());
    same_name.push(cards.len() - 1);
    cards.len() - 1
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let measure = &self.measure;
        let numbers = [measure.min_window_s, measure.idle_s, measure.settle_s, measure.relative_std.unwrap_or(0.0)];
        if !numbers.iter().all(|n| n.is_finite()) {
            return Err(S::Error::custom("measure has a number that is not finite"));
        }
        let (mut models, mut gpus) = (Vec::new(), Vec::new());
        let (mut model_numbers, mut gpu_numbers) = (HashMap::new(), HashMap::new());
        let line = |p: &Point, model, gpu| PointLine {
            point_id: p.point_id.clone(),
            model,
            gpu,
            engine: p.engine.clone(),
            precision: p.precision.clone(),
            tensor_parallel: p.tensor_parallel,
            pipeline_parallel: p.pipeline_parallel,
            data_parallel: p.data_parallel,
            batch_size: p.batch_size,
            input_tokens: p.input_tokens,
            output_tokens: p.output_tokens,
        };
        let mut points = Vec::with_capacity(self.points.len());
        for p in &self.points {
            let model = number(&p.model, &p.model.model, &mut models, &mut model_numbers);
            let gpu = number(&p.gpu, &p.gpu.gpu_model, &mut gpus, &mut gpu_numbers);
            points.push(line(p, model, gpu));
        }
        PlanFile {
            name: self.name.clone(),
            script_sha256: self.script_sha256.clone(),
            seed: self.seed,
            repeats: self.repeats,
            measure: self.measure,
            workload: self.workload.clone(),
            models,
            gpus,
            points,
            runs: self.runs.clone(),
            adaptive: self.adaptive.clone(),
            left_out: self.left_out,
            slurm: self.slurm.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let file = PlanFile::deserialize(deserializer)?;
        let lost = |what: &str, i: usize, len: usize| D::Error::custom(format!("{what} {i} is named, of {len}"));
        let mut points = Vec::with_capacity(file.points.len());
        for p in file.points {
            let model = file.models.get(p.model).ok_or_else(|| lost("model", p.model, file.models.len()))?;
            let gpu = file.gpus.get(p.gpu).ok_or_else(|| lost("gpu", p.gpu, file.gpus.len()))?;
            points.push(Point {
                point_id: p.point_id,
                model: model.clone(),
                gpu: gpu.clone(),
                engine: p.engine,
                precision: p.precision,
                tensor_parallel: p.tensor_parallel,
                pipeline_parallel: p.pipeline_parallel,
                data_parallel: p.data_parallel,
                batch_size: p.batch_size,
                input_tokens: p.input_tokens,
                output_tokens: p.output_tokens,
            });
        }
        if let Some(run) = file.runs.iter().find(|r| r.point >= points.len()) {
            return Err(lost("point", run.point, points.len()));
        }
        let mut order = file.adaptive.iter().flat_map(|a| &a.order);
        if let Some(&point) = order.find(|&&point| point >= points.len()) {
            return Err(lost("point", point, points.len()));
        }
        Ok(Self {
            name: file.name,
            script_sha256: file.script_sha256,
            seed: file.seed,
            repeats: file.repeats,
            measure: file.measure,
            workload: file.workload,
            points,
            runs: file.runs,
            adaptive: file.adaptive,
            left_out: file.left_out,
            slurm: file.slurm,
        })
    }
}
