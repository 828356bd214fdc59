//! Models made by hand: a dense one whose cache was measured at some degrees, a pooled law over a dense model, a mixture of
//! experts and one without a cache, and a model of which nothing is known.

use energylens::dataset::Row;
use energylens::law::{Case, Descriptors, Law, MODEL_FORMAT, Model, Pool, Scenario, Target, Training, Verdict};
use energylens::schema::Phase;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::fixture;

/// Random configurations of each world, besides the edges.
const RANDOM: usize = 250;

const GPU: &str = "A100-SXM4-80GB";

pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) model: Model,
}

/// One configuration.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) tensor: u32,
    pub(crate) pipeline: u32,
    pub(crate) replicas: u32,
    pub(crate) batch: f64,
    pub(crate) input: f64,
    pub(crate) output: f64,
    pub(crate) phase: Phase,
    /// Tokens that the cache of one replica holds, where the caller says so.
    pub(crate) capacity: Option<f64>,
}

impl World {
    pub(crate) fn is_open(&self) -> bool {
        self.model.pool == Pool::Models
    }

    /// What the law itself says, a figure per target.
    pub(crate) fn figures(&self, asked: &Asked) -> Vec<f64> {
        let case = self.case(asked);
        self.model.laws.iter().map(|law| law.predict(&case, true).value).collect()
    }

    pub(crate) fn case(&self, asked: &Asked) -> Case {
        let row = row(asked);
        self.scenario(asked).case(&row).expect("a whole row")
    }

    pub(crate) fn scenario(&self, asked: &Asked) -> &Scenario {
        self.model.scenarios.iter().find(|s| s.model == asked.model).expect("a known model")
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let names: Vec<&String> = self.model.scenarios.iter().map(|s| &s.model).collect();
        let phases = [Phase::Total, Phase::Prefill, Phase::Decode];
        let random = (0..RANDOM).map(|i| Asked {
            model: names[i % names.len()].clone(),
            tensor: 1 << rng.random_range(0..4),
            pipeline: rng.random_range(1..5),
            replicas: rng.random_range(1..5),
            batch: 2_f64.powf(rng.random_range(0.0..12.0)).round(),
            input: 2_f64.powf(rng.random_range(0.0..17.0)).round(),
            output: 2_f64.powf(rng.random_range(0.0..13.0)).round(),
            phase: phases[rng.random_range(0..3)],
            capacity: None,
        });
        let mut all: Vec<Asked> = random.collect();
        for model in names {
            for phase in phases {
                // Batch, replicas, input, output: a single token; a fraction of a sequence each; waves at the end of the
                // batch but not at its start; a cache that no sequence fits into; experts that all are visited.
                for (batch, replicas, input, output) in [
                    (1.0, 1, 1.0, 1.0),
                    (1.0, 4, 64.0, 2.0),
                    (32.5, 2, 4000.0, 60_000.0),
                    (3.0, 1, 5e6, 7.0),
                    (100_000.0, 1, 8.0, 3.0),
                ] {
                    for (tensor, pipeline) in [(1, 1), (4, 1), (2, 3), (8, 4)] {
                        all.push(Asked {
                            model: model.clone(),
                            tensor,
                            pipeline,
                            replicas,
                            batch,
                            input,
                            output,
                            phase,
                            capacity: None,
                        });
                    }
                }
            }
        }
        all
    }
}

pub(crate) fn row(asked: &Asked) -> Row {
    serde_json::from_value(json!({
        "line": 1, "run_id": "", "phase": asked.phase, "quality": [], "source": "imported",
        "model": asked.model, "gpu_model": GPU, "num_gpus": asked.tensor * asked.pipeline * asked.replicas,
        "tensor_parallel": asked.tensor, "pipeline_parallel": asked.pipeline, "data_parallel": asked.replicas,
        "expert_parallel": 1, "batch_size": asked.batch, "input_tokens": asked.input, "output_tokens": asked.output,
    }))
    .expect("a whole row")
}

pub(crate) fn worlds() -> Vec<World> {
    let dense =
        scenario("meta-llama/Llama-2-70b-hf", descriptors(80.0, 69e9, 138e9, 8192.0, 327_680.0, [0.0, 0.0, 1.0]));
    // A name that turns the direction of what follows it, in comments too.
    let stateless_name = "lab/no-cache\u{202e}\u{2066}\u{2028}";
    let measured = Scenario { kv_capacity_tokens: vec![(4, 1, 400_000.0), (2, 2, 123_456.7)], ..dense.clone() };
    let experts = scenario(
        "mistralai/Mixtral \"8x7B\"?",
        descriptors(32.0, 12.9e9, 93.4e9, 4096.0, 131_072.0, [8.0, 2.0, 45.066_667 / 46.7]),
    );
    let stateless = scenario(stateless_name, descriptors(24.0, 3e9, 6e9, 2560.0, 0.0, [0.0, 0.0, 1.0]));
    let unknown = Scenario { gpu_memory_bytes: None, ..scenario("own/model", Descriptors::nominal()) };
    vec![
        World { name: "dense", model: model(Pool::None, vec![measured.clone()]) },
        World { name: "pooled", model: model(Pool::Models, vec![measured, experts, stateless]) },
        World { name: "unknown", model: model(Pool::None, vec![unknown]) },
    ]
}

fn descriptors(layers: f64, active: f64, weights: f64, hidden: f64, kv: f64, routing: [f64; 3]) -> Descriptors {
    Descriptors {
        n_layers: layers,
        active_params: active,
        weight_bytes: weights,
        hidden_size: hidden,
        kv_bytes_per_token: kv,
        num_experts: routing[0],
        experts_per_token: routing[1],
        routed_share: routing[2],
        nominal: false,
    }
}

fn scenario(model: &str, descriptors: Descriptors) -> Scenario {
    Scenario {
        model: model.to_owned(),
        architecture: None,
        gpu_model: GPU.to_owned(),
        engine: Some("vllm".to_owned()),
        precision: Some("bf16".to_owned()),
        descriptors,
        gpu_memory_bytes: Some(80e9),
        memory_utilisation: Some(0.87),
        kv_capacity_tokens: Vec::new(),
    }
}

fn model(pool: Pool, scenarios: Vec<Scenario>) -> Model {
    let name = (pool == Pool::None).then(|| scenarios[0].model.clone());
    Model {
        survival: None,
        format: MODEL_FORMAT.to_owned(),
        energylens_version: "0.1.0".to_owned(),
        pool,
        training: Training { rows: 50, rejected: 2, sha256: "ab".repeat(32), seed: 1 },
        laws: Target::ALL.iter().map(|target| law(*target, name.clone(), &scenarios)).collect(),
        scenarios,
    }
}

fn law(target: Target, model: Option<String>, scenarios: &[Scenario]) -> Law {
    let mut law = fixture::law(target);
    law.domain.retain(|symbol, _| symbol == "B");
    // An exponent whose error nobody knows.
    law.exponents.iter_mut().for_each(|e| e.std_error = None);
    Law {
        model,
        simulated: false,
        fitted_models: scenarios.iter().map(|s| s.model.clone()).collect(),
        verdicts: vec![Verdict::WeaklyDetermined { parameter: "k6".to_owned() }],
        ..law
    }
}
