//! Time and power of one forward pass of one pipeline stage: a roofline with launch overhead, collectives and a cap.
//!
//! ```text
//! one stage, one pass:   GEMMs      attention    norms      all-reduces        (all L/p layers)
//!   GPU              |===========|============|========|~~~~~~~~~~~~~~~~~|
//!   CPU launches     |- - - - - - - - - - - - - - - - - - - -|                 whichever is longer, smoothly
//! ```
//!
//! Every kernel takes the p-norm of its compute and memory time: a max whose corner is rounded, because near the ridge
//! neither resource is used perfectly. All functions are pure; noise comes in as a factor. Constants without a source are
//! engineering estimates, and the tests say what they lead to.

use super::hardware::Hardware;
use crate::card::ModelCard;

/// Exponent of the rounded maximum. 1 adds compute and memory time, infinity overlaps them perfectly; measured matrix
/// products near the ridge lie between 3 and 6.
const OVERLAP: f64 = 4.0;
/// Tokens in a pass at which a matrix product reaches half of its efficiency: half of a 128-row tile.
const HALF_EFFICIENCY_TOKENS: f64 = 64.0;
/// Columns per shard at which a matrix product reaches half of its efficiency; narrow shards leave SMs without tiles.
const HALF_EFFICIENCY_COLUMNS: f64 = 160.0;
/// The same for streaming the weights, which suffers later.
const HALF_BANDWIDTH_COLUMNS: f64 = 90.0;
/// Attention kernels reach this share of what large matrix products reach (FlashAttention-2 against cuBLAS).
const ATTENTION_EFFICIENCY: f64 = 0.55;
/// Activation bytes per token, layer and unit of hidden size that every tensor-parallel rank repeats (residual stream
/// and norms, bf16), and that the ranks share (projections and MLP).
const REPEATED_ACTIVATION_BYTES: f64 = 12.0;
const SHARED_ACTIVATION_BYTES: f64 = 28.0;
/// CPU time to launch the kernels of one layer, s: some fifteen kernels from Python at 12 µs, without whole-graph capture
/// (the Splitwise traces show two to three times as much, engines with captured graphs a tenth).
const LAUNCH_S_PER_LAYER: f64 = 180e-6;
/// MoE layers launch routing, permutation and grouped products besides.
const MOE_LAUNCH_FACTOR: f64 = 1.5;
/// Latency of an all-reduce among two GPUs and its growth per doubling, s (NCCL, small messages, NVLink).
const ALL_REDUCE_LATENCY_S: f64 = 10e-6;
const ALL_REDUCE_LATENCY_PER_DOUBLING_S: f64 = 6e-6;
/// Share of the link's data-sheet rate that collectives reach.
const LINK_EFFICIENCY: f64 = 0.7;
/// Latency of handing activations to the next stage, s (send, receive, and the worker's wake-up).
const HOP_LATENCY_S: f64 = 60e-6;
/// Recurrent state of a state-space layer per unit of hidden size, bytes: expansion 2, state 64, bf16.
const STATE_BYTES_PER_HIDDEN: f64 = 256.0;
/// FLOPs of the scan per token, layer and unit of hidden size: expansion 2, state 64, six operations.
const SCAN_FLOPS_PER_HIDDEN: f64 = 768.0;
/// Energy of an operation falls with the core clock as f^1.4: dynamic power then goes as f^2.4, between f^2 of a
/// half-scaled and f^3 of a fully scaled voltage.
const CLOCK_ENERGY_EXPONENT: f64 = 1.4;
/// Lowest core clock that power capping chooses, relative to the highest.
const LOWEST_CLOCK: f64 = 0.35;
/// Static power rises by this share between a cold GPU and one at its power limit (leakage grows with temperature).
const LEAKAGE_RISE: f64 = 0.12;

/// How a replica is cut over GPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shard {
    pub(super) tensor_parallel: f64,
    pub(super) pipeline_parallel: f64,
}

/// The tokens of one forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Forward {
    /// Tokens that are computed.
    pub(super) tokens: f64,
    /// Sequences that they belong to.
    pub(super) sequences: f64,
    /// Query-key pairs: for each token, the positions that it attends to.
    pub(super) attended: f64,
    /// Tokens whose keys and values travel between memory and cores.
    pub(super) kv_tokens: f64,
}

impl Forward {
    /// `tokens` of prompts that are `prompt` long. Causal attention skips half of the square.
    pub(super) fn prefill(tokens: f64, prompt: f64) -> Self {
        Self { tokens, sequences: (tokens / prompt).max(1.0), attended: tokens * prompt / 2.0, kv_tokens: tokens }
    }

    /// One token for each of `sequences`, whose contexts are `context` long.
    pub(super) fn decode(sequences: f64, context: f64) -> Self {
        let attended = sequences * context;
        Self { tokens: sequences, sequences, attended, kv_tokens: attended }
    }
}

/// One pass of one stage on one GPU, power cap applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pass {
    /// Duration, s, without the hop to the next stage.
    pub(super) busy_s: f64,
    /// Mean power, W.
    pub(super) power_w: f64,
}

/// `(a^q + b^q)^(1/q)`, computed around the larger so that nothing overflows.
fn rounded_max(a: f64, b: f64) -> f64 {
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    if large <= 0.0 { 0.0 } else { large * (1.0 + (small / large).powf(OVERLAP)).powf(1.0 / OVERLAP) }
}

/// Parameters that every token visits, and parameters of all routed experts:
/// `active = shared + routed·k/E` and `params = shared + routed`, solved for both.
pub(super) fn shared_and_routed_params(model: &ModelCard) -> (f64, f64) {
    let visited = model.experts_per_token / model.num_experts;
    if model.num_experts > 1.0 && visited > 0.0 && visited < 1.0 {
        let routed = ((model.params - model.active_params) / (1.0 - visited)).clamp(0.0, model.params);
        (model.params - routed, routed)
    } else {
        (model.active_params, 0.0)
    }
}

/// Bytes of recurrent state that one sequence holds over all state-space layers.
pub(super) fn state_bytes_per_sequence(model: &ModelCard) -> f64 {
    model.ssm_share * model.n_layers * model.hidden_size * STATE_BYTES_PER_HIDDEN
}

/// Time and dynamic energy of a pass at one core clock.
struct Cost {
    busy_s: f64,
    dynamic_j: f64,
}

fn cost(gpu: &Hardware, model: &ModelCard, shard: Shard, forward: Forward, clock: f64) -> Cost {
    let t = shard.tensor_parallel;
    // Layers are whole: the slowest stage sets the pace of all.
    let layers = (model.n_layers / shard.pipeline_parallel).ceil();
    let share = layers / model.n_layers / t;
    let columns = model.hidden_size / t;
    let flop_rate = gpu.card.peak_flops * gpu.gemm_efficiency * clock * columns / (columns + HALF_EFFICIENCY_COLUMNS);
    let byte_rate =
        gpu.card.memory_bandwidth_bytes_per_s * gpu.bandwidth_efficiency * columns / (columns + HALF_BANDWIDTH_COLUMNS);

    // Weights read by every token, and those of the experts that the tokens of this pass happen to visit.
    let (shared, routed) = shared_and_routed_params(model);
    let mut gpu_s = 0.0;
    let mut flops = 0.0;
    let mut bytes = 0.0;
    let visited = if routed > 0.0 { model.experts_per_token / model.num_experts } else { 0.0 };
    for (params_read, params_computed, rows) in [
        (shared, shared, forward.tokens),
        (routed * model.expert_coverage(forward.tokens), routed * visited, forward.tokens * visited),
    ] {
        let part_flops = 2.0 * params_computed * forward.tokens * share;
        let part_bytes = params_read * model.bytes_per_weight * share;
        // Rows below a tile are padded: they cost time, not energy.
        let tile_fill = rows / (rows + HALF_EFFICIENCY_TOKENS);
        if part_flops > 0.0 {
            gpu_s += rounded_max(part_flops / (flop_rate * tile_fill), part_bytes / byte_rate);
        }
        flops += part_flops;
        bytes += part_bytes;
    }

    let attention_layers = layers * (1.0 - model.ssm_share);
    let attention_flops = 4.0 * model.hidden_size * attention_layers * forward.attended / t;
    let kv_bytes = model.kv_bytes_per_token * forward.kv_tokens * share;
    gpu_s += rounded_max(attention_flops / (flop_rate * ATTENTION_EFFICIENCY), kv_bytes / byte_rate);

    // State-space layers read and write their state once a pass and sequence, whatever the context.
    let state_bytes = 2.0 * state_bytes_per_sequence(model) * forward.sequences * share;
    let scan_flops = SCAN_FLOPS_PER_HIDDEN * model.hidden_size * layers * model.ssm_share * forward.tokens / t;
    gpu_s += rounded_max(scan_flops / (flop_rate * ATTENTION_EFFICIENCY), state_bytes / byte_rate);

    let activation_bytes =
        forward.tokens * layers * model.hidden_size * (REPEATED_ACTIVATION_BYTES + SHARED_ACTIVATION_BYTES / t);
    gpu_s += activation_bytes / byte_rate;

    // Two all-reduces a layer (Megatron); a ring sends 2(t-1)/t of the message from every GPU.
    let link_rate = gpu.card.link_bandwidth_bytes_per_s * LINK_EFFICIENCY;
    let mut link_bytes = 0.0;
    if t > 1.0 {
        let message = 2.0 * model.hidden_size * forward.tokens;
        let sent = 2.0 * (t - 1.0) / t * message;
        let latency =
            (ALL_REDUCE_LATENCY_S + ALL_REDUCE_LATENCY_PER_DOUBLING_S * (t.log2() - 1.0)) * gpu.collective_latency;
        gpu_s += 2.0 * layers * (latency + sent / link_rate);
        link_bytes = 2.0 * layers * sent;
    }

    let launch_s = layers * LAUNCH_S_PER_LAYER * if routed > 0.0 { MOE_LAUNCH_FACTOR } else { 1.0 };
    flops += attention_flops + scan_flops;
    bytes += kv_bytes + state_bytes + activation_bytes;
    Cost {
        busy_s: rounded_max(gpu_s, launch_s),
        dynamic_j: gpu.joules_per_flop * flops * clock.powf(CLOCK_ENERGY_EXPONENT)
            + gpu.joules_per_byte * bytes
            + gpu.joules_per_link_byte * link_bytes,
    }
}

/// Power of a GPU with `dynamic_w` on top of its static power. Leakage rises with the temperature, which rises with
/// the total: `P = s·(1 + r·P/limit) + d`, solved for `P`.
fn total_power_w(gpu: &Hardware, dynamic_w: f64) -> f64 {
    let leakage = LEAKAGE_RISE * gpu.waiting_power_w / gpu.card.power_limit_w;
    (gpu.waiting_power_w + dynamic_w) / (1.0 - leakage)
}

/// Power of a GPU that holds a model and waits for work, W.
pub(super) fn waiting_power_w(gpu: &Hardware, power_factor: f64) -> f64 {
    (total_power_w(gpu, 0.0) * power_factor).min(gpu.card.power_limit_w)
}

/// One pass with the power limit applied: the core clock falls until the power fits, so the work takes longer. What
/// even the lowest clock cannot fit (memory-bound work beyond the limit) is stretched.
pub(super) fn pass(gpu: &Hardware, model: &ModelCard, shard: Shard, forward: Forward, power_factor: f64) -> Pass {
    let limit_w = gpu.card.power_limit_w;
    let at = |clock: f64| {
        let cost = cost(gpu, model, shard, forward, clock);
        let power_w = total_power_w(gpu, cost.dynamic_j / cost.busy_s) * power_factor;
        (cost, power_w)
    };
    let (full, power_w) = at(1.0);
    if power_w <= limit_w {
        return Pass { busy_s: full.busy_s, power_w };
    }
    let (lowest, power_w) = at(LOWEST_CLOCK);
    if power_w > limit_w {
        let dynamic_w = (limit_w / power_factor - total_power_w(gpu, 0.0)).max(0.01 * limit_w);
        return Pass { busy_s: (lowest.dynamic_j / dynamic_w).max(lowest.busy_s), power_w: limit_w };
    }
    let (mut low, mut high) = (LOWEST_CLOCK, 1.0);
    for _ in 0..24 {
        let middle = 0.5 * (low + high);
        if at(middle).1 > limit_w { high = middle } else { low = middle }
    }
    let (fitting, power_w) = at(low);
    Pass { busy_s: fitting.busy_s, power_w }
}

/// Time to hand the activations of `tokens` to the next stage, s.
pub(super) fn hop_s(gpu: &Hardware, model: &ModelCard, tokens: f64) -> f64 {
    HOP_LATENCY_S + 2.0 * model.hidden_size * tokens / (gpu.card.link_bandwidth_bytes_per_s * LINK_EFFICIENCY)
}
