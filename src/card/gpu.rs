//! The GPU card: data-sheet rates and memory.

use serde::{Deserialize, Serialize};

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

/// Data-sheet facts of one GPU, dense (no sparsity) and without boost claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuCard {
    /// Name as in `gpu_model`.
    pub gpu_model: String,
    /// Maker.
    pub vendor: Vendor,
    /// Memory of one GPU, bytes.
    pub memory_bytes: f64,
    /// Peak dense bf16 rate, FLOP/s.
    pub peak_flops: f64,
    /// Peak memory bandwidth, bytes/s.
    pub memory_bandwidth_bytes_per_s: f64,
    /// GPU-to-GPU bandwidth inside a node, bytes/s in one direction.
    pub link_bandwidth_bytes_per_s: f64,
    /// Board power limit, W.
    pub power_limit_w: f64,
    /// Idle power with a context loaded, W.
    pub idle_power_w: f64,
}
