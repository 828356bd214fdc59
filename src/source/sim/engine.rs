//! What one replica of a serving engine does with a batch: chunks, micro-batches, decode steps, and the KV cache's limit.
//!
//! ```text
//! one wave:     request | prefill chunks | decode, context grows from S to S+m              |
//! many waves:   request | prefill of what fits | decode at full cache, prefill of the rest and of preempted sequences |
//! ```
//!
//! Sequences beyond the KV cache are a fluid: with continuous batching a finished sequence makes room for the next at
//! once, so 2.3 caches' worth of sequences take 2.3 rounds of decode steps, not 3. Right for an engine under sustained
//! load, which is what a measuring window of repeated batches is; a single cold batch of equal lengths ends on a
//! partly filled last round that this does not show. Limits: `max_num_seqs` and prefix caching are not modelled.

use super::hardware::Hardware;
use super::physics::{self, Forward, Pass, Shard};
use crate::card::ModelCard;

/// Share of the GPU memory that the engine may fill (vLLM's `gpu_memory_utilization`).
pub(super) const MEMORY_UTILISATION: f64 = 0.9;
/// Token budget of one prefill step without and with pipelining, where smaller chunks keep the stages busy.
const CHUNK_TOKENS: f64 = 8_192.0;
const PIPELINED_CHUNK_TOKENS: f64 = 2_048.0;
/// Scheduler, sampling and detokenising per step, s, and per sequence in it.
const HOST_S_PER_STEP: f64 = 4e-3;
const HOST_S_PER_SEQUENCE: f64 = 15e-6;
/// HTTP, tokeniser and queue before the first step, s, and per sequence.
const REQUEST_S: f64 = 3e-3;
const REQUEST_S_PER_SEQUENCE: f64 = 60e-6;
/// Stretches of growing context that decode is cut into; the power of a stretch is constant.
const DECODE_STRETCHES: usize = 12;
/// Share of running sequences that lose their cache when far more wait than fit: admission looks at the prompt alone,
/// so sequences that grow past it are preempted and computed anew.
const PREEMPTED_SHARE: f64 = 0.3;

/// A stretch of constant power.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    pub(super) duration_s: f64,
    /// Mean power of each GPU of the replica, W.
    pub(super) power_w: f64,
}

/// What the batch asks of one replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) sequences: f64,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
}

/// What a replica did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReplicaRun {
    pub(super) stretches: Vec<Stretch>,
    /// End of the first wave's prefill, s after the request.
    pub(super) first_token_s: f64,
    pub(super) mean_ttft_s: f64,
    /// Mean time per output token after the first; `None` when there is only one.
    pub(super) mean_tpot_s: Option<f64>,
}

/// One model on the GPUs of one replica.
pub(super) struct Replica<'a> {
    pub(super) gpu: &'a Hardware,
    pub(super) model: &'a ModelCard,
    pub(super) shard: Shard,
    /// Run-to-run factor on every duration.
    pub(super) time_factor: f64,
    /// Run-to-run factor on every power.
    pub(super) power_factor: f64,
}

/// Memory that a replica leaves for sequences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CacheSpace {
    /// Bytes beside the weights; negative when not even they fit.
    pub(super) free_bytes: f64,
    /// Bytes that one sequence of `input_tokens + output_tokens` needs at its end.
    pub(super) bytes_per_sequence: f64,
}

impl Replica<'_> {
    pub(super) fn available_bytes(&self) -> f64 {
        self.shard.tensor_parallel * self.shard.pipeline_parallel * self.gpu.card.memory_bytes * MEMORY_UTILISATION
    }

    pub(super) fn cache_space(&self, share: Share) -> CacheSpace {
        let tokens = share.input_tokens + share.output_tokens;
        CacheSpace {
            free_bytes: self.available_bytes() - self.model.weight_bytes(),
            bytes_per_sequence: self.model.kv_bytes_per_token * tokens + physics::state_bytes_per_sequence(self.model),
        }
    }

    /// Serves one batch; `ripple` draws the relative deviation of the next stretch's power.
    pub(super) fn serve(&self, share: Share, mut ripple: impl FnMut() -> f64) -> ReplicaRun {
        let space = self.cache_space(share);
        let steps = share.output_tokens - 1.0;
        // Sequences that fit to their last token. With prefill alone a cache is freed as soon as it is filled.
        let fitting =
            if steps > 0.0 { (space.free_bytes / space.bytes_per_sequence.max(1.0)).max(1.0) } else { share.sequences };
        let excess = (share.sequences / fitting).max(1.0);
        // Staggered sequences hold half of their output on average, so somewhat more run at once than fit to the end.
        let staggered = 1.0 - 1.0 / excess;
        let half_grown = (share.input_tokens + share.output_tokens) / (share.input_tokens + share.output_tokens / 2.0);
        let running = share.sequences.min(fitting * (1.0 + staggered * (0.97 * half_grown - 1.0).max(0.0)));
        let rounds = (share.sequences / running).max(1.0);

        let mut run = Vec::with_capacity(DECODE_STRETCHES + 4);
        let waiting_w = physics::waiting_power_w(self.gpu, self.power_factor);
        let request_s = (REQUEST_S + REQUEST_S_PER_SEQUENCE * share.sequences) * self.time_factor;
        run.push(Stretch { duration_s: request_s, power_w: waiting_w });

        let (first, chunks) = self.prefill(running, share.input_tokens, ripple());
        run.push(first);
        let first_token_s = request_s + first.duration_s;
        // Chunks finish one after the other: on average a sequence waits for half of them.
        let wave_ttft_s = request_s + first.duration_s * (chunks + 1.0) / (2.0 * chunks);

        let mut decode_s = 0.0;
        if steps > 0.0 {
            let recomputed =
                PREEMPTED_SHARE * staggered * share.output_tokens / (share.input_tokens + share.output_tokens);
            let later_sequences = (share.sequences - running + recomputed * share.sequences) / DECODE_STRETCHES as f64;
            for i in 0..DECODE_STRETCHES {
                let grown = (i as f64 + 0.5) / DECODE_STRETCHES as f64;
                // Alone, a wave's context grows in step; with stagger every context length is present at any time.
                let context = share.input_tokens + share.output_tokens * (grown * (1.0 - staggered) + 0.5 * staggered);
                let step = self.decode_step(running, context, ripple());
                let duration_s = step.duration_s * steps * rounds / DECODE_STRETCHES as f64;
                run.push(Stretch { duration_s, power_w: step.power_w });
                decode_s += duration_s;
                if later_sequences > 0.0 {
                    // A fraction of a sequence is a whole one that comes less often: its pass still reads all weights.
                    let whole = later_sequences.max(1.0);
                    let (mut later, _) = self.prefill(whole, share.input_tokens, ripple());
                    later.duration_s *= later_sequences / whole;
                    run.push(later);
                    decode_s += later.duration_s;
                }
            }
        }
        // Of the sequences, 1/rounds start at once; the others wait for room, evenly over the rest.
        let queued_s = decode_s * (1.0 - 1.0 / rounds).powi(2) / 2.0;
        ReplicaRun {
            stretches: run,
            first_token_s,
            mean_ttft_s: wave_ttft_s + queued_s,
            mean_tpot_s: (steps > 0.0).then(|| decode_s / rounds / steps),
        }
    }

    /// Prefill of `sequences` prompts and the number of chunks it took.
    fn prefill(&self, sequences: f64, input_tokens: f64, ripple: f64) -> (Stretch, f64) {
        let p = self.shard.pipeline_parallel;
        let tokens = sequences * input_tokens;
        let budget = if p > 1.0 { PIPELINED_CHUNK_TOKENS } else { CHUNK_TOKENS };
        let chunks = (tokens / budget).ceil().max(1.0);
        let pass = self.pass(Forward::prefill(tokens / chunks, input_tokens), ripple);
        let stage_s = pass.busy_s + self.hop_s(tokens / chunks);
        // M micro-batches through p stages: (M + p - 1) slots, of which each stage works in M.
        let total_s = (chunks + p - 1.0) * stage_s + chunks * self.host_s(sequences / chunks);
        (self.mean(chunks, pass, total_s), chunks)
    }

    /// One decode step of all `sequences`.
    fn decode_step(&self, sequences: f64, context: f64, ripple: f64) -> Stretch {
        let p = self.shard.pipeline_parallel;
        // Fewer sequences than stages leave stages idle; every micro-batch reads its stage's weights again.
        let micro_batches = p.min(sequences).max(1.0);
        let pass = self.pass(Forward::decode(sequences / micro_batches, context), ripple);
        let stage_s = pass.busy_s + self.hop_s(sequences / micro_batches);
        self.mean(micro_batches, pass, p * stage_s + self.host_s(sequences))
    }

    fn pass(&self, forward: Forward, ripple: f64) -> Pass {
        physics::pass(self.gpu, self.model, self.shard, forward, self.power_factor * (1.0 + ripple))
    }

    /// `passes` busy passes within `total_s`; the rest of the time the GPU waits.
    fn mean(&self, passes: f64, pass: Pass, total_s: f64) -> Stretch {
        let busy = (passes * pass.busy_s / total_s).min(1.0);
        let waiting_w = physics::waiting_power_w(self.gpu, self.power_factor);
        Stretch { duration_s: total_s * self.time_factor, power_w: busy * pass.power_w + (1.0 - busy) * waiting_w }
    }

    fn hop_s(&self, tokens: f64) -> f64 {
        if self.shard.pipeline_parallel > 1.0 { physics::hop_s(self.gpu, self.model, tokens) } else { 0.0 }
    }

    fn host_s(&self, sequences: f64) -> f64 {
        HOST_S_PER_STEP + HOST_S_PER_SEQUENCE * sequences
    }
}
