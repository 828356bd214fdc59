use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::sweep::{Measure, WorkloadSpec};

fn sweep(points: usize, prefill_share: f64) -> Sweep {
    Sweep {
        name: "test".to_owned(),
        seed: 7,
        repeats: 1,
        axes: Axes {
            model: vec![ModelCard::builtin("llama-2-70b").unwrap()],
            gpu_model: vec![GpuCard::builtin("a100-80gb").unwrap()],
            precision: vec![],
            tensor_parallel: Levels::choice(vec![1, 2, 4, 8]),
            pipeline_parallel: Levels::choice(vec![1, 2, 4]),
            data_parallel: Levels::choice(vec![1]),
            batch_size: Levels::Geometric(1, 64),
            input_tokens: Levels::Geometric(64, 4096),
            output_tokens: Levels::Geometric(16, 512),
        },
        design: Design::LatinHypercube { points, prefill_share },
        measure: Measure::default(),
        workload: WorkloadSpec::Simulated { gpus: 8, run_noise: 0.0 },
        slurm: None,
    }
}

fn draw(sweep: &Sweep) -> Vec<Point> {
    points(sweep, &mut |_| Ok(true)).unwrap().points
}

#[test]
fn a_hypercube_deals_its_points_over_what_fits() {
    let points = draw(&sweep(50, 0.2));
    assert_eq!(points.len(), 50);
    assert_eq!(points.iter().filter(|p| p.output_tokens == 1).count(), 10);
    let mut degrees: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for p in &points {
        *degrees.entry((p.tensor_parallel, p.pipeline_parallel)).or_default() += 1;
    }
    // 138 GB of weights: at least two A100-80GB, at most eight.
    let fitting = [(1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (8, 1)];
    assert_eq!(degrees.keys().copied().collect::<Vec<_>>(), fitting);
    assert!(degrees.values().all(|n| (6..=7).contains(n)), "{degrees:?}");
}

#[test]
fn a_hypercube_has_one_point_in_each_stratum_of_each_size() {
    let n = 40;
    let mut sweep = sweep(n, 0.0);
    // An axis long enough that rounding moves no point out of its stratum, and a model that fits with all of it.
    sweep.axes.model = vec![ModelCard::builtin("llama-3.1-8b").unwrap()];
    sweep.axes.input_tokens = Levels::Geometric(100, 100_000);
    sweep.axes.batch_size = Levels::Choice(vec![1]);
    let mut inputs: Vec<f64> = draw(&sweep).iter().map(|p| f64::from(p.input_tokens)).collect();
    inputs.sort_by(f64::total_cmp);
    let (low, high) = (99.5_f64.ln(), 100_000.5_f64.ln());
    for (i, input) in inputs.iter().enumerate() {
        let stratum = (input.ln() - low) / (high - low) * n as f64;
        assert!((stratum - i as f64 - 0.5).abs() < 0.7, "point {i} lies in stratum {stratum}");
    }
}

#[test]
fn prefill_only_points_are_spread_over_the_degrees() {
    let with: BTreeSet<_> = draw(&sweep(80, 0.25))
        .iter()
        .filter(|p| p.is_prefill_only())
        .map(|p| (p.tensor_parallel, p.pipeline_parallel))
        .collect();
    assert_eq!(with.len(), 8);
}

#[test]
fn too_many_points_for_a_small_space_are_counted() {
    let mut sweep = sweep(100, 0.0);
    sweep.axes.batch_size = Levels::choice(vec![1, 2]);
    sweep.axes.input_tokens = Levels::choice(vec![64]);
    sweep.axes.output_tokens = Levels::choice(vec![16, 32, 64]);
    let message = points(&sweep, &mut |_| Ok(true)).unwrap_err().to_string();
    assert_eq!(message, "the design asks for 100 points that decode; 48 are feasible");
    // As many as there are: all of them.
    sweep.design = Design::LatinHypercube { points: 48, prefill_share: 0.0 };
    assert_eq!(draw(&sweep).len(), 48);
    let message = points(&sweep, &mut |c| Ok(c.batch_size == 1)).unwrap_err().to_string();
    assert_eq!(
        message,
        "the design asks for 48 points that decode; 24 are feasible; left out: 24 of 48 combinations: 24 by `where`"
    );
}

#[test]
fn a_where_that_takes_nothing_ends_with_an_error() {
    let message = points(&sweep(10, 0.2), &mut |_| Ok(false)).unwrap_err().to_string();
    assert!(message.starts_with("the design asks for 2 prefill-only points; a search of "), "{message}");
    assert!(message.contains("found 0, and probably few more are feasible; left out: "), "{message}");
    assert!(message.ends_with(" by `where`"), "{message}");
    let mut grid = sweep(1, 0.0);
    grid.design = Design::Factorial;
    assert!(points(&grid, &mut |_| Ok(false)).is_err());
}

/// A sweep of 24 combinations was planned as 6 points, without a word about the other 18.
#[test]
fn what_is_left_out_is_counted_by_its_first_reason() {
    let mut sweep = sweep(1, 0.0);
    sweep.design = Design::Factorial;
    // 70 billion weights of 2 bytes: not on one GPU of 80 GB; hidden_size 8192 is no multiple of 3; the node has 8.
    sweep.axes.tensor_parallel = Levels::choice(vec![1, 3, 4, 16]);
    sweep.axes.pipeline_parallel = Levels::choice(vec![1]);
    sweep.axes.data_parallel = Levels::choice(vec![1, 2]);
    sweep.axes.batch_size = Levels::choice(vec![1, 2]);
    sweep.axes.input_tokens = Levels::choice(vec![64, 90_000_000]);
    sweep.axes.output_tokens = Levels::choice(vec![16]);
    sweep.axes.model.truncate(1);
    sweep.axes.gpu_model.truncate(1);
    let laid = points(&sweep, &mut |c| Ok(c.batch_size == 1)).unwrap();
    // 4 x 2 deployments of 4 points each: 2 of them on 16 GPUs and 32, 2 cut by 3, 2 on one GPU. Of the 8 points of
    // TP 4, one replica of each two has no sequence (2 points), 3 have long inputs, and of the rest 2 have two sequences.
    let expected = LeftOut {
        of: 32,
        gpus: 8,
        hidden_size: 8,
        memory: 8,
        replicas: 2,
        kv_cache: 3,
        filtered: 2,
        ..LeftOut::default()
    };
    assert_eq!((laid.left_out, laid.points.len()), (expected, 1));
    assert_eq!(
        laid.left_out.to_string(),
        "31 of 32 combinations: 8 for GPUs that the node does not have, 8 for a hidden_size that tensor_parallel does not \
         divide, 8 for memory, 2 for a batch_size below data_parallel, 3 for the KV cache, 2 by `where`"
    );
    sweep.design = Design::LatinHypercube { points: 1, prefill_share: 0.0 };
    let of_deployments = points(&sweep, &mut |_| Ok(true)).unwrap().left_out;
    assert_eq!((of_deployments.of, of_deployments.count(), of_deployments.what), (8, 6, Counted::Deployments));
}

#[test]
fn what_does_not_fit_says_what_lacks() {
    let mut sweep = sweep(10, 0.0);
    sweep.axes.tensor_parallel = Levels::choice(vec![1]);
    sweep.axes.pipeline_parallel = Levels::choice(vec![1]);
    let message = points(&sweep, &mut |_| Ok(true)).unwrap_err().to_string();
    assert!(message.contains("needs 128 GiB for weights; 72 GiB are usable on 1 A100-SXM4-80GB"), "{message}");
    sweep.axes.tensor_parallel = Levels::choice(vec![16]);
    let message = points(&sweep, &mut |_| Ok(true)).unwrap_err().to_string();
    assert!(message.contains("needs 16 GPUs of 8"), "{message}");
}

#[test]
fn precision_changes_the_weights_and_the_label() {
    let mut sweep = sweep(10, 0.0);
    sweep.axes.precision = vec!["bf16".to_owned(), "fp8".to_owned()];
    sweep.axes.tensor_parallel = Levels::choice(vec![1]);
    sweep.axes.pipeline_parallel = Levels::choice(vec![1]);
    // 69 GB in eight bits fit one GPU, 138 GB do not.
    sweep.workload = WorkloadSpec::Simulated { gpus: 1, run_noise: 0.0 };
    let points = draw(&sweep);
    assert!(points.iter().all(|p| p.precision == "fp8" && p.model.bytes_per_weight == 1.0));
}

#[test]
fn a_hundred_thousand_points_are_distinct() {
    let points = draw(&sweep(100_000, 0.01));
    let ids: BTreeSet<_> = points.iter().map(|p| &p.point_id).collect();
    assert_eq!(ids.len(), 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_hypercube_has_exactly_its_points_all_feasible(
        n in 1..120_usize, share in 0.0..1.0_f64, seed in any::<u64>(), limit in 64..4096_u32,
        low in 1..16_u32, span in 0..200_u32,
    ) {
        let mut sweep = sweep(n, share);
        sweep.seed = seed;
        sweep.axes.batch_size = Levels::Geometric(low, low + span);
        sweep.axes.data_parallel = Levels::choice(vec![1, 2]);
        let accept = |b: u32, s: u32| b * s <= limit * 64;
        let points = points(&sweep, &mut |c| Ok(accept(c.batch_size, c.input_tokens))).unwrap().points;
        prop_assert_eq!(points.len(), n);
        let distinct: BTreeSet<_> = points.iter().map(|p| p.point_id.clone()).collect();
        prop_assert_eq!(distinct.len(), n);
        prop_assert_eq!(points.iter().filter(|p| p.output_tokens == 1).count(), (n as f64 * share).round() as usize);
        for p in &points {
            prop_assert!(p.num_gpus() <= 8 && p.batch_size >= p.data_parallel);
            prop_assert!(accept(p.batch_size, p.input_tokens));
            prop_assert!(p.model.weight_bytes() < 0.9 * f64::from(p.tensor_parallel * p.pipeline_parallel) * p.gpu.memory_bytes);
        }
    }
}

#[test]
fn a_d_optimal_design_tells_more_than_a_hypercube_and_is_as_long_as_asked() {
    let hypercube = sweep(24, 0.0);
    let optimal = Sweep { design: Design::DOptimal { points: 24 }, ..hypercube.clone() };
    let all = deployments(&optimal.axes, 8).unwrap().0;
    let told = |points: &[Point]| {
        let of = |p: &Point| {
            let same =
                |d: &&Deployment| d.tensor_parallel == p.tensor_parallel && d.pipeline_parallel == p.pipeline_parallel;
            let deployment = all.iter().find(same).unwrap();
            let (batch_size, input_tokens) = (p.batch_size, p.input_tokens);
            Candidate { deployment, batch_size, input_tokens, output_tokens: p.output_tokens }
        };
        optimal::log_determinant(points.iter().map(of))
    };
    let (even, best) = (draw(&hypercube), draw(&optimal));
    assert_eq!(best.len(), 24);
    // Each parameter is known better by a factor of e^(1/4) in variance, on average over the twelve.
    assert!(told(&best) > told(&even) + 3.0, "{} against {}", told(&best), told(&even));
    assert_eq!(draw(&optimal), best, "one seed, one design");
    assert_ne!(draw(&Sweep { seed: 8, ..optimal.clone() }), best);
}

#[test]
fn a_d_optimal_design_obeys_where_and_counts_what_is_feasible() {
    let mut sweep = Sweep { design: Design::DOptimal { points: 6 }, ..sweep(1, 0.0) };
    let few = points(&sweep, &mut |c| Ok(c.deployment.tensor_parallel == 4 && c.batch_size <= 2)).unwrap().points;
    assert!(few.len() == 6 && few.iter().all(|p| p.tensor_parallel == 4 && p.batch_size <= 2));
    for levels in [&mut sweep.axes.batch_size, &mut sweep.axes.input_tokens, &mut sweep.axes.output_tokens] {
        *levels = Levels::Choice(vec![64]);
    }
    assert_eq!(draw(&Sweep { design: Design::DOptimal { points: 8 }, ..sweep.clone() }).len(), 8, "all that there are");
    sweep.design = Design::DOptimal { points: 9 };
    let error = points(&sweep, &mut |_| Ok(true)).unwrap_err().to_string();
    assert!(error.contains("9") && error.contains("8 are feasible"), "{error}");
}
