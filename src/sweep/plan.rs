//! The plan: points, runs and their identifiers.

use serde::{Deserialize, Serialize};

use crate::card::{GpuCard, ModelCard};

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
}

/// One repeat of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `<point_id>-<repeat>`.
    pub run_id: String,
    /// Index into [`Plan::points`].
    pub point: usize,
    /// Which repeat, from 0.
    pub repeat: u32,
}

/// Everything a sweep will do, before it does any of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The sweep's name.
    pub name: String,
    /// SHA-256 of the script, hex.
    pub script_sha256: String,
    /// Seed of the design, the order and the simulated noise.
    pub seed: u64,
    /// Points.
    pub points: Vec<Point>,
    /// Runs, in the order in which they will be carried out.
    pub runs: Vec<Run>,
}
