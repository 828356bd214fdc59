//! One configuration as the law sees it: every symbol of a skeleton has a number.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fitted::RowKind;
use crate::card::model::expert_coverage;
use crate::schema::Phase;

/// A quantity that a term may multiply. The spelling is the one of skeleton files and printed formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// `t`: tensor-parallel degree.
    TensorParallel,
    /// `t1`: tensor-parallel degree less one; 0 without tensor parallelism.
    TensorParallelLessOne,
    /// `p`: pipeline-parallel degree.
    PipelineParallel,
    /// `p1`: pipeline-parallel degree less one.
    PipelineParallelLessOne,
    /// `B`: sequences in flight per replica.
    Batch,
    /// `S`: input tokens per sequence, vision tokens included.
    Input,
    /// `m`: output tokens per sequence, which is decode steps.
    Output,
    /// `ctx`: `S + m/2`, the mean context of a decode step.
    MeanContext,
    /// `seq`: `S + m`, all tokens of a sequence.
    Sequence,
    /// `L`: layers.
    Layers,
    /// `N`: active parameters.
    ActiveParams,
    /// `W`: weight bytes.
    WeightBytes,
    /// `h`: hidden size.
    Hidden,
    /// `K`: KV-cache bytes per token.
    KvBytes,
    /// `c`: share of the weights that a decode step reads; below 1 for mixture-of-experts models at small batches.
    Coverage,
    /// `r`: how often all weights are read over a batch: the prefill's tokens share one pass, and each further token is
    /// a decode step, `c(B S) + (m-1) c(B)`. It is `m` for models that do not route.
    Reads,
    /// `w`: waves, `max(1, B (S+m) / kv_capacity)`: how often the KV cache forces the batch to queue.
    Waves,
    /// `u`: micro-batches in the pipeline, `min(p, B/w)`: engines split the batch so that every stage has work.
    MicroBatches,
    /// `i`: stages per micro-batch, `p/u`; above 1 stages stand idle in decode.
    StagesPerMicroBatch,
    /// `b`: the prefill's pipeline bubble, `(u+p-1)/u`: its duration over that of a full pipeline (GPipe).
    Bubble,
}

impl Symbol {
    /// Every symbol, in the order in which documentation lists them.
    pub const ALL: &'static [Symbol] = &[
        Self::TensorParallel,
        Self::TensorParallelLessOne,
        Self::PipelineParallel,
        Self::PipelineParallelLessOne,
        Self::Batch,
        Self::Input,
        Self::Output,
        Self::MeanContext,
        Self::Sequence,
        Self::Layers,
        Self::ActiveParams,
        Self::WeightBytes,
        Self::Hidden,
        Self::KvBytes,
        Self::Coverage,
        Self::Reads,
        Self::Waves,
        Self::MicroBatches,
        Self::StagesPerMicroBatch,
        Self::Bubble,
    ];

    /// The spelling in skeleton files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TensorParallel => "t",
            Self::TensorParallelLessOne => "t1",
            Self::PipelineParallel => "p",
            Self::PipelineParallelLessOne => "p1",
            Self::Batch => "B",
            Self::Input => "S",
            Self::Output => "m",
            Self::MeanContext => "ctx",
            Self::Sequence => "seq",
            Self::Layers => "L",
            Self::ActiveParams => "N",
            Self::WeightBytes => "W",
            Self::Hidden => "h",
            Self::KvBytes => "K",
            Self::Coverage => "c",
            Self::Reads => "r",
            Self::Waves => "w",
            Self::MicroBatches => "u",
            Self::StagesPerMicroBatch => "i",
            Self::Bubble => "b",
        }
    }

    /// The way it is written in a formula for people.
    pub fn display(self) -> &'static str {
        match self {
            Self::TensorParallelLessOne => "(t-1)",
            Self::PipelineParallelLessOne => "(p-1)",
            Self::MeanContext => "(S+m/2)",
            Self::Sequence => "(S+m)",
            Self::Coverage => "c(B)",
            other => other.as_str(),
        }
    }

    /// The same for LaTeX.
    pub fn latex(self) -> &'static str {
        match self {
            Self::TensorParallelLessOne => "(t-1)",
            Self::PipelineParallelLessOne => "(p-1)",
            Self::MeanContext => r"\left(S+\tfrac{m}{2}\right)",
            Self::Sequence => "(S+m)",
            Self::Coverage => "c(B)",
            other => other.as_str(),
        }
    }

    /// Symbols that a fitted exponent may stand on: degrees, and what a pipeline makes of them.
    pub const SCALABLE: &'static [Symbol] =
        &[Self::TensorParallel, Self::PipelineParallel, Self::MicroBatches, Self::StagesPerMicroBatch, Self::Bubble];

    /// Whether the symbol comes from the model card, so that it is constant within one scenario.
    pub fn is_card(self) -> bool {
        matches!(self, Self::Layers | Self::ActiveParams | Self::WeightBytes | Self::Hidden | Self::KvBytes)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Every number that the law needs of one configuration. Batch is per replica: a run of `data_parallel` replicas is
/// that many cases side by side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What the energy or time covers.
    pub phase: Phase,
    /// Tensor-parallel degree.
    pub tensor_parallel: f64,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: f64,
    /// Replicas.
    pub data_parallel: f64,
    /// Sequences in flight per replica.
    pub batch_size: f64,
    /// Input tokens per sequence.
    pub input_tokens: f64,
    /// Output tokens per sequence.
    pub output_tokens: f64,
    /// Layers.
    pub n_layers: f64,
    /// Active parameters.
    pub active_params: f64,
    /// Weight bytes.
    pub weight_bytes: f64,
    /// Hidden size.
    pub hidden_size: f64,
    /// KV-cache bytes per token.
    pub kv_bytes_per_token: f64,
    /// Routed experts per layer; 0 when the model does not route.
    pub num_experts: f64,
    /// Experts that one token visits.
    pub experts_per_token: f64,
    /// Share of the weights that belong to routed experts; 1 where nothing better is known.
    #[serde(default = "Case::all_routed")]
    pub routed_share: f64,
    /// Tokens that the KV cache of one replica holds; `None` when it never limits.
    pub kv_capacity_tokens: Option<f64>,
}

impl Case {
    /// What is assumed where the split of a mixture-of-experts model is not known.
    pub(super) fn all_routed() -> f64 {
        1.0
    }

    /// The same configuration stopped after `output_tokens` tokens.
    pub fn with_output(mut self, output_tokens: f64) -> Self {
        self.output_tokens = output_tokens;
        self
    }

    /// Which of the law's scatters a row of this case has.
    pub fn row_kind(&self) -> RowKind {
        let stops_early = self.phase == Phase::Total && self.output_tokens <= 1.0;
        if self.phase == Phase::Prefill || stops_early { RowKind::Prefill } else { RowKind::Batch }
    }

    /// Waves that the KV cache forces: `max(1, B (S+m) / kv_capacity)`.
    pub fn waves(&self) -> f64 {
        match self.kv_capacity_tokens {
            Some(capacity) if capacity > 0.0 => {
                // A sequence that does not fit alone cannot run in more waves than there are sequences.
                (self.batch_size * (self.input_tokens + self.output_tokens) / capacity).min(self.batch_size).max(1.0)
            }
            _ => 1.0,
        }
    }

    /// Micro-batches that share the pipeline: as many as there are stages, while there are sequences enough.
    pub fn micro_batches(&self) -> f64 {
        (self.batch_size / self.waves()).clamp(1.0, self.pipeline_parallel.max(1.0))
    }

    /// Sequences of one wave and one micro-batch: only they share a step's weights.
    fn sequences_together(&self) -> f64 {
        self.batch_size / (self.waves() * self.micro_batches())
    }

    /// Share of the weights that a pass over `tokens` tokens reads.
    pub(crate) fn coverage(&self, tokens: f64) -> f64 {
        // Attention, embeddings and shared experts are read in any case: of Qwen3-30B-A3B they are nearly half of what a
        // single sequence reads.
        1.0 - self.routed_share * (1.0 - expert_coverage(self.num_experts, self.experts_per_token, tokens))
    }

    /// How often all weights are read by `sequences` that share every pass.
    pub(crate) fn reads(&self, sequences: f64) -> f64 {
        let prefill = self.coverage(sequences * self.input_tokens.max(1.0));
        prefill + (self.output_tokens - 1.0).max(0.0) * self.coverage(sequences)
    }

    /// The number behind a symbol.
    pub fn value(&self, symbol: Symbol) -> f64 {
        match symbol {
            Symbol::TensorParallel => self.tensor_parallel,
            Symbol::TensorParallelLessOne => self.tensor_parallel - 1.0,
            Symbol::PipelineParallel => self.pipeline_parallel,
            Symbol::PipelineParallelLessOne => self.pipeline_parallel - 1.0,
            Symbol::Batch => self.batch_size,
            Symbol::Input => self.input_tokens,
            Symbol::Output => self.output_tokens,
            Symbol::MeanContext => self.input_tokens + self.output_tokens / 2.0,
            Symbol::Sequence => self.input_tokens + self.output_tokens,
            Symbol::Layers => self.n_layers,
            Symbol::ActiveParams => self.active_params,
            Symbol::WeightBytes => self.weight_bytes,
            Symbol::Hidden => self.hidden_size,
            Symbol::KvBytes => self.kv_bytes_per_token,
            Symbol::Coverage => self.coverage(self.sequences_together()),
            Symbol::Reads => self.reads(self.sequences_together()),
            Symbol::Waves => self.waves(),
            Symbol::MicroBatches => self.micro_batches(),
            Symbol::StagesPerMicroBatch => self.pipeline_parallel / self.micro_batches(),
            Symbol::Bubble => (self.micro_batches() + self.pipeline_parallel - 1.0) / self.micro_batches(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Llama-2-70B in bf16 on four GPUs: 80 layers, 8 KV heads of 128, so 2*80*1024*2 bytes per token.
    pub(crate) fn llama_70b(t: f64, b: f64, s: f64, m: f64) -> Case {
        Case {
            phase: Phase::Total,
            tensor_parallel: t,
            pipeline_parallel: 1.0,
            data_parallel: 1.0,
            batch_size: b,
            input_tokens: s,
            output_tokens: m,
            n_layers: 80.0,
            active_params: 69e9,
            weight_bytes: 138e9,
            hidden_size: 8192.0,
            kv_bytes_per_token: 327_680.0,
            num_experts: 0.0,
            experts_per_token: 0.0,
            routed_share: 1.0,
            kv_capacity_tokens: Some(400_000.0),
        }
    }

    #[test]
    fn waves_begin_where_the_cache_is_full() {
        assert_eq!(llama_70b(4.0, 100.0, 3000.0, 1000.0).waves(), 1.0);
        assert_eq!(llama_70b(4.0, 200.0, 3000.0, 1000.0).waves(), 2.0);
        // One sequence that exceeds the cache cannot be three waves.
        assert_eq!(llama_70b(4.0, 1.0, 1_200_000.0, 1000.0).waves(), 1.0);
        let unlimited = Case { kv_capacity_tokens: None, ..llama_70b(4.0, 1e6, 3000.0, 1000.0) };
        assert_eq!(unlimited.waves(), 1.0);
    }

    #[test]
    fn a_pipeline_splits_the_batch_while_it_can() {
        let at = |batch: f64| Case { pipeline_parallel: 4.0, ..llama_70b(1.0, batch, 1000.0, 1000.0) };
        let values = |batch: f64| {
            [Symbol::MicroBatches, Symbol::StagesPerMicroBatch, Symbol::Bubble].map(|s| at(batch).value(s))
        };
        assert_eq!(values(1.0), [1.0, 4.0, 4.0]);
        assert_eq!(values(2.0), [2.0, 2.0, 2.5]);
        assert_eq!(values(64.0), [4.0, 1.0, 1.75]);
        // Without a pipeline all three are 1, whatever the batch.
        assert_eq!(llama_70b(4.0, 7.0, 1000.0, 10.0).value(Symbol::Bubble), 1.0);
    }

    #[test]
    fn queued_sequences_do_not_share_a_step() {
        let mut case = llama_70b(4.0, 8.0, 1000.0, 1000.0);
        (case.num_experts, case.experts_per_token) = (8.0, 2.0);
        case.kv_capacity_tokens = Some(8_000.0);
        assert_eq!(case.value(Symbol::Waves), 2.0);
        assert!((case.value(Symbol::Coverage) - (1.0 - 0.75_f64.powi(4))).abs() < 1e-12);
    }

    #[test]
    fn a_prompt_reads_what_its_tokens_visit_and_a_step_what_its_sequences_do() {
        // Without routing every pass reads everything.
        assert_eq!(llama_70b(4.0, 8.0, 1000.0, 100.0).value(Symbol::Reads), 100.0);
        let mut case = llama_70b(4.0, 1.0, 3.0, 5.0);
        (case.num_experts, case.experts_per_token) = (8.0, 2.0);
        // Three tokens at once miss an expert with 0.75^3; then four steps of one token, a quarter each.
        assert!((case.value(Symbol::Reads) - (1.0 - 0.421_875 + 4.0 * 0.25)).abs() < 1e-12);
        // A prefill row is the first pass alone.
        assert!((case.with_output(1.0).value(Symbol::Reads) - 0.578_125).abs() < 1e-12);
    }

    #[test]
    fn one_sequence_reads_the_active_parameters() {
        let mut case = llama_70b(4.0, 1.0, 1000.0, 1000.0);
        (case.num_experts, case.experts_per_token) = (8.0, 2.0);
        // Mixtral 8x7B: 45.07 of 46.7 billion parameters are routed, 12.9 are active.
        case.routed_share = 45.066_667 / 46.7;
        assert!((case.value(Symbol::Coverage) - 12.9 / 46.7).abs() < 1e-6);
    }
}
