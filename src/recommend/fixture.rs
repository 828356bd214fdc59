//! A model file made by hand, for tests: Llama-2-70B on A100s, with numbers of the right size.

use std::collections::BTreeMap;

use crate::law::{
    Coefficient, Descriptors, Domain, Exponent, Law, MODEL_FORMAT, Model, Pool, Scenario, Skeleton, Target, Training,
    Verdict,
};

pub(crate) const MODEL: &str = "meta-llama/Llama-2-70b-hf";
pub(crate) const GPU: &str = "A100-SXM4-80GB";

/// Measured on TP 1 to 8, PP 1 to 2, batches to 128; 5 % uncertain coefficients, 0.03 uncertain exponents, 4 % residuals.
pub(crate) fn law(target: Target) -> Law {
    let skeleton = Skeleton::default_for(target);
    let (k, a): (&[f64], [f64; 4]) = if target == Target::EnergyJ {
        (&[0.11, 3.6e-12, 3.6e-12, 1.5e-10, 2.6e-12, 1.5e-10, 1e-9, 0.02], [0.1, 0.25, 0.05, 0.3])
    } else {
        (&[6.4e-15, 6e-15, 5e-13, 6.4e-15, 5e-13, 1e-12, 5e-6, 2e-5], [-0.9, -0.1, -0.9, -0.1])
    };
    let n = k.len() + a.len();
    let deviation = |i: usize| k.get(i).map_or(0.03, |k| 0.05 * k);
    let covariance =
        (0..n).map(|i| (0..n).map(|j| if i == j { deviation(i) * deviation(j) } else { 0.0 }).collect()).collect();
    let coefficients = skeleton.terms.iter().zip(k).map(|(term, value)| Coefficient {
        name: term.name.clone(),
        value: *value,
        std_error: Some(0.05 * value),
        low: 0.9 * value,
        high: Some(1.1 * value),
        unit: term.unit.clone(),
    });
    let exponents = skeleton.exponents.iter().zip(a).map(|(spec, value)| Exponent {
        name: spec.name.clone(),
        value,
        std_error: Some(0.03),
        low: value - 0.06,
        high: value + 0.06,
    });
    let range = [("t", 1.0, 8.0), ("p", 1.0, 2.0), ("B", 1.0, 128.0), ("S", 64.0, 4096.0), ("m", 1.0, 1024.0)];
    Law {
        coefficients: coefficients.collect(),
        exponents: exponents.collect(),
        skeleton,
        model: Some(MODEL.to_owned()),
        gpu_model: GPU.to_owned(),
        engine: Some("vllm".to_owned()),
        precision: Some("bf16".to_owned()),
        simulated: true,
        intervals: crate::law::Intervals::default(),
        prior: None,
        covariance,
        sigma_log: 0.04,
        scatter: Default::default(),
        sigma_model_log: 0.0,
        degrees_of_freedom: 38.0,
        rows: 50,
        training_mape: 0.031,
        domain: range.into_iter().map(|(s, low, high)| (s.to_owned(), Domain { low, high })).collect(),
        fitted_models: vec![MODEL.to_owned()],
        verdicts: vec![Verdict::Converged { agreeing_starts: 7, starts: 8 }],
        held_out: None,
    }
}

pub(crate) fn model() -> Model {
    Model {
        format: MODEL_FORMAT.to_owned(),
        energylens_version: "0.1.0".to_owned(),
        pool: Pool::None,
        training: Training { rows: 50, rejected: 2, sha256: "0".repeat(64), seed: 1 },
        laws: vec![law(Target::EnergyJ), law(Target::MeanTpotS)],
        survival: None,
        scenarios: vec![Scenario {
            model: MODEL.to_owned(),
            architecture: Some("dense".to_owned()),
            gpu_model: GPU.to_owned(),
            engine: Some("vllm".to_owned()),
            precision: Some("bf16".to_owned()),
            descriptors: Descriptors {
                n_layers: 80.0,
                active_params: 69e9,
                weight_bytes: 138e9,
                hidden_size: 8192.0,
                kv_bytes_per_token: 327_680.0,
                num_experts: 0.0,
                experts_per_token: 0.0,
                routed_share: 1.0,
                nominal: false,
            },
            gpu_memory_bytes: Some(80e9),
            memory_utilisation: None,
            kv_capacity_tokens: Vec::new(),
        }],
    }
}

/// The same with accuracy figures, as `validate` leaves them.
pub(crate) fn model_with_held_out() -> Model {
    let mut model = model();
    let figures = [
        ("energylens", [0.045, 0.958, 0.97, 0.002, 0.96]),
        ("log-log quadratic ridge", [0.11, 0.86, 0.90, 0.02, 0.91]),
        ("fewest GPUs", [f64::NAN, 0.83, 0.86, 0.03, f64::NAN]),
    ];
    let names = ["mape", "top1", "top1_tolerant", "regret", "pairwise"];
    let figures = figures.into_iter().map(|(predictor, values)| {
        let known = names.into_iter().zip(values).filter(|(_, v)| v.is_finite());
        (predictor.to_owned(), known.map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>())
    });
    if let Some(law) = model.laws.first_mut() {
        law.held_out = Some(crate::law::HeldOut {
            scheme: "5-fold over workloads".to_owned(),
            seed: 7,
            training_rows: 40,
            figures: figures.collect(),
            groups: 31,
        });
    }
    model
}
