//! Rows as somebody might have measured them, made from a law with known numbers: what the program must find again.
//!
//! Written out here once more, term by term, and not called from the library: a mistake there must not hide here.

use std::fmt::Write;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A dense model in bf16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Card {
    /// Name.
    pub(crate) model: &'static str,
    params: f64,
    n_layers: f64,
    hidden_size: f64,
    kv_bytes_per_token: f64,
}

/// Five sizes, of which the last is for predictions from the others.
pub(crate) const CARDS: [Card; 5] = [
    Card { model: "lab/dense-3b", params: 3.1e9, n_layers: 28.0, hidden_size: 3072.0, kv_bytes_per_token: 114_688.0 },
    Card { model: "lab/dense-8b", params: 8.0e9, n_layers: 32.0, hidden_size: 4096.0, kv_bytes_per_token: 131_072.0 },
    Card { model: "lab/dense-30b", params: 30e9, n_layers: 48.0, hidden_size: 7168.0, kv_bytes_per_token: 196_608.0 },
    Card { model: "lab/dense-70b", params: 70e9, n_layers: 80.0, hidden_size: 8192.0, kv_bytes_per_token: 327_680.0 },
    Card { model: "lab/dense-14b", params: 14e9, n_layers: 40.0, hidden_size: 5120.0, kv_bytes_per_token: 163_840.0 },
];

/// The columns, in the order of the rows.
pub(crate) const HEADER: &str = "run_id,model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,batch_size,input_tokens,\
                          output_tokens,energy_j,duration_s,mean_ttft_s,mean_tpot_s,engine,precision,params,n_layers,\
                          hidden_size,kv_bytes_per_token,bytes_per_weight,gpu_memory_bytes";

const GPU_MEMORY_BYTES: f64 = 80e9;

/// One configuration of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    /// Model.
    pub(crate) card: Card,
    /// Tensor-parallel degree.
    pub(crate) t: f64,
    /// Sequences.
    pub(crate) batch: f64,
    /// Input tokens.
    pub(crate) input: f64,
    /// Output tokens.
    pub(crate) output: f64,
}

impl Work {
    fn weight_bytes(&self) -> f64 {
        2.0 * self.card.params
    }

    fn waves(&self) -> f64 {
        let capacity = (0.9 * GPU_MEMORY_BYTES * self.t - self.weight_bytes()) / self.card.kv_bytes_per_token;
        (self.batch * (self.input + self.output) / capacity).min(self.batch).max(1.0)
    }

    fn fits(&self) -> bool {
        self.weight_bytes() < 0.85 * GPU_MEMORY_BYTES * self.t
    }

    /// Joules of one batch, to the last digit.
    pub(crate) fn energy_j(&self) -> f64 {
        let Self { card, t, batch, input, output } = *self;
        let (l, h) = (card.n_layers, card.hidden_size);
        let idle = 0.030 * l.powf(0.7) * t * output * self.waves();
        let prefill = (3e-12 * card.params * batch * input + 4e-13 * l * h * batch * input * input) * t.powf(0.25);
        let weights = 2.5e-10 * self.weight_bytes() * self.waves();
        let arithmetic = 3e-12 * card.params * batch;
        let cache = 3e-10 * card.kv_bytes_per_token * batch * (input + output / 2.0);
        let decode = output * (weights + arithmetic + cache) * t.powf(-0.2);
        let all_reduce = 2e-10 * l * h * batch * (input + output) * (t - 1.0);
        let launch = 0.030 * l * output * self.waves();
        idle + prefill + decode + all_reduce + launch
    }

    /// Seconds to the first token.
    pub(crate) fn ttft_s(&self) -> f64 {
        2.0 * self.card.params * self.batch * self.input / 2e14 * self.t.powf(-0.8) + 1e-5 * self.card.n_layers
    }

    /// Seconds per token after it.
    pub(crate) fn tpot_s(&self) -> f64 {
        let busy = self.weight_bytes() * self.waves() / 2e12 + 2.0 * self.card.params * self.batch / 3e14;
        busy * self.t.powf(-0.8) + 1.2e-5 * self.card.n_layers
    }

    fn duration_s(&self) -> f64 {
        self.ttft_s() + (self.output - 1.0) * self.tpot_s()
    }
}

/// Every configuration of these models and sizes that fits its GPUs.
pub(crate) fn grid(cards: &[Card], batches: &[f64], inputs: &[f64], outputs: &[f64]) -> Vec<Work> {
    let mut works = Vec::new();
    for card in cards.iter().copied() {
        for t in [1.0, 2.0, 4.0, 8.0] {
            for batch in batches.iter().copied() {
                for input in inputs.iter().copied() {
                    for output in outputs.iter().copied() {
                        works.push(Work { card, t, batch, input, output });
                    }
                }
            }
        }
    }
    works.retain(Work::fits);
    works
}

/// What a laboratory measures: a grid over the sizes.
pub(crate) fn measured_grid(cards: &[Card]) -> Vec<Work> {
    grid(cards, &[1.0, 8.0, 64.0], &[128.0, 1024.0], &[1.0, 32.0, 256.0])
}

/// Sizes between and around those of [`measured_grid`], none of them in it.
pub(crate) fn unseen_grid(cards: &[Card]) -> Vec<Work> {
    grid(cards, &[2.0, 16.0, 48.0], &[200.0, 700.0], &[20.0, 150.0])
}

/// The table, each figure with independent log-normal errors of relative size `noise`.
pub(crate) fn csv(works: &[Work], noise: f64, seed: u64) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Twelve uniform numbers make a normal one to better than is needed here.
    let mut err = |value: f64| {
        let normal: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        value * (noise * normal).exp()
    };
    let mut text = format!("{HEADER}\n");
    for (i, work) in works.iter().enumerate() {
        let Work { card, t, batch, input, output } = work;
        let tpot = if *output > 1.0 { err(work.tpot_s()).to_string() } else { String::new() };
        let (energy, duration, ttft) = (err(work.energy_j()), err(work.duration_s()), err(work.ttft_s()));
        writeln!(
            text,
            "r{i},{},A100-SXM4-80GB,{t},{t},1,{batch},{input},{output},{energy},{duration},{ttft},{tpot},vllm,bf16,{},{},{},{},2,{GPU_MEMORY_BYTES}",
            card.model, card.params, card.n_layers, card.hidden_size, card.kv_bytes_per_token
        )
        .expect("text grows");
    }
    text
}

/// The same table without what is to be predicted.
pub(crate) fn configurations(works: &[Work]) -> String {
    let table = csv(works, 0.0, 0);
    let skipped: Vec<usize> = HEADER
        .split(',')
        .enumerate()
        .filter(|(_, name)| ["energy_j", "duration_s", "mean_ttft_s", "mean_tpot_s"].contains(name))
        .map(|(i, _)| i)
        .collect();
    let without = |line: &str| {
        let kept = line.split(',').enumerate().filter(|(i, _)| !skipped.contains(i)).map(|(_, field)| field);
        kept.collect::<Vec<_>>().join(",") + "\n"
    };
    table.lines().map(without).collect()
}
