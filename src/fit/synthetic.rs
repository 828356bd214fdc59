//! Rows made from a law with known numbers: what a fit must find again. Tests only.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::problem::Observation;
use crate::law::{Case, Skeleton};
use crate::schema::Phase;

/// Coefficients of the magnitude seen on A100s for a 70B model.
pub(crate) const COEFFICIENTS: [f64; 8] = [0.037, 3e-12, 4e-13, 2.5e-10, 3e-12, 3e-10, 2e-10, 0.03];
/// Exponents apart from their priors, so that a fit which does nothing is caught.
pub(crate) const EXPONENTS: [f64; 4] = [0.25, 0.15, -0.2, 0.4];

/// `n` rows over TP x PP x batch x lengths with log-normal noise.
pub(crate) fn observations(skeleton: &Skeleton, n: usize, noise: f64, seed: u64) -> Vec<Observation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| {
            let mut pick = |values: &[f64]| values[rng.random_range(0..values.len())];
            let (t, p) = (pick(&[1.0, 2.0, 4.0, 8.0]), pick(&[1.0, 2.0, 4.0]));
            let case = Case {
                phase: Phase::Total,
                tensor_parallel: t,
                pipeline_parallel: p,
                data_parallel: 1.0,
                batch_size: pick(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
                input_tokens: (64.0 * 2f64.powf(rng.random_range(0.0..7.0))).round(),
                output_tokens: (2f64.powf(rng.random_range(0.0..9.0))).round(),
                n_layers: 80.0,
                active_params: 69e9,
                weight_bytes: 138e9,
                hidden_size: 8192.0,
                kv_bytes_per_token: 327_680.0,
                num_experts: 0.0,
                experts_per_token: 0.0,
                routed_share: 1.0,
                kv_capacity_tokens: Some(100_000.0 * t * p),
            };
            let truth: f64 = skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &case).iter().sum();
            let normal: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
            Observation { case, value: truth * (noise * normal).exp(), relative_std: None }
        })
        .collect()
}

/// A group whose rows give back exactly `observations`.
pub(crate) fn group(observations: &[Observation]) -> super::group::Group {
    use crate::dataset::Row;
    use crate::law::{Descriptors, Scenario};
    let row = |(i, o): (usize, &Observation)| {
        let (t, p) = (o.case.tensor_parallel as u32, o.case.pipeline_parallel as u32);
        Row {
            line: i + 1,
            phase: o.case.phase,
            model: "synthetic".to_owned(),
            gpu_model: "synthetic".to_owned(),
            energy_j: Some(o.value),
            kv_capacity_tokens: o.case.kv_capacity_tokens,
            ..row(t, p, o.case.batch_size, o.case.input_tokens, o.case.output_tokens)
        }
    };
    let case = observations[0].case;
    let descriptors = Descriptors {
        n_layers: case.n_layers,
        active_params: case.active_params,
        weight_bytes: case.weight_bytes,
        hidden_size: case.hidden_size,
        kv_bytes_per_token: case.kv_bytes_per_token,
        num_experts: case.num_experts,
        experts_per_token: case.experts_per_token,
        routed_share: case.routed_share,
        nominal: false,
    };
    super::group::Group {
        model: Some("synthetic".to_owned()),
        gpu_model: "synthetic".to_owned(),
        engine: None,
        precision: None,
        simulated: false,
        rows: observations.iter().enumerate().map(row).collect(),
        scenarios: vec![Scenario {
            model: "synthetic".to_owned(),
            architecture: None,
            gpu_model: "synthetic".to_owned(),
            engine: None,
            precision: None,
            descriptors,
            gpu_memory_bytes: None,
            memory_utilisation: None,
            kv_capacity_tokens: Vec::new(),
        }],
    }
}

/// A bare row of Llama-2-70B on A100s, to be filled in by a test.
pub(crate) fn row(t: u32, p: u32, batch: f64, input: f64, output: f64) -> crate::dataset::Row {
    crate::dataset::Row {
        num_gpus: t * p,
        tensor_parallel: t,
        pipeline_parallel: p,
        batch_size: batch,
        input_tokens: Some(input),
        output_tokens: output,
        ..crate::dataset::Row::new("meta-llama/Llama-2-70b-hf", "A100-SXM4-80GB")
    }
}
