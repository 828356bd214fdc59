use std::collections::BTreeSet;

use super::*;

fn plan(axes: &str) -> Plan {
    let source = format!(
        "local el = require 'energylens'\nreturn el.sweep {{ name = 'p', seed = 3, repeats = 3, axes = {{ {axes} }},\n\
         design = el.latin_hypercube {{ points = 20, prefill_share = 0.2 }}, workload = el.simulated {{ gpus = 8 }} }}"
    );
    Plan::from_source("p.lua", &source, Path::new("."), &mut |_| ()).unwrap()
}

const AXES: [&str; 6] = [
    "model = el.choice { 'llama-2-7b', 'mixtral-8x7b' }",
    "gpu_model = el.choice { 'h100', 'a100' }",
    "tensor_parallel = el.choice { 4, 2 }",
    "batch_size = el.geometric { 1, 64 }",
    "input_tokens = el.geometric { 64, 1024 }",
    "output_tokens = el.linear { 16, 128 }",
];

#[test]
fn the_order_of_axes_and_of_choices_does_not_change_the_plan() {
    let first = plan(&AXES.join(", "));
    let mut reversed: Vec<String> = AXES.iter().rev().map(|a| (*a).to_owned()).collect();
    reversed[5] = "model = el.choice { 'mixtral-8x7b', 'llama-2-7b' }".to_owned();
    reversed[3] = "tensor_parallel = el.choice { 2, 4, 2 }".to_owned();
    let second = plan(&reversed.join(", "));
    assert_ne!(first.script_sha256, second.script_sha256);
    assert_eq!(first.points, second.points);
    assert_eq!(first.runs, second.runs);
    assert_eq!(first.difference(&second), None);
}

#[test]
fn the_same_point_has_the_same_identifier_in_every_plan() {
    let point = |more: &str| plan_of_one(more).points[0].point_id.clone();
    let alone = point("batch_size = 8");
    assert_eq!(alone.len(), 12);
    assert!(alone.chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(alone, point("batch_size = el.choice { 8 }, pipeline_parallel = 1"));
    assert_ne!(alone, point("batch_size = 9"));
    assert_ne!(alone, point("batch_size = 8, precision = 'fp8'"));
    assert_ne!(alone, point("batch_size = 8, tensor_parallel = 2"));
}

fn plan_of_one(more: &str) -> Plan {
    let source = format!(
        "local el = require 'energylens'\nreturn el.sweep {{ name = 'p', axes = {{ model = 'llama-2-7b', gpu_model = 'a100',\n\
         input_tokens = 64, output_tokens = 16, {more} }}, design = el.factorial(), workload = el.simulated {{}} }}"
    );
    Plan::from_source("p.lua", &source, Path::new("."), &mut |_| ()).unwrap()
}

#[test]
fn runs_come_repeat_by_repeat_and_each_deployment_serves_its_points_in_one_go() {
    let plan = plan(&AXES.join(", "));
    assert_eq!(plan.runs.len(), 60);
    for (repeat, block) in plan.runs.chunks(20).enumerate() {
        assert!(block.iter().all(|r| r.repeat == repeat as u32));
        assert_eq!(block.iter().map(|r| r.point).collect::<BTreeSet<_>>().len(), 20);
        let starts = 1 + block
            .windows(2)
            .filter(|w| !plan.points[w[0].point].shares_deployment(&plan.points[w[1].point]))
            .count();
        let deployments: BTreeSet<_> = plan
            .points
            .iter()
            .map(|p| (&p.model.model, &p.gpu.gpu_model, p.tensor_parallel, p.pipeline_parallel))
            .collect();
        assert_eq!(starts, deployments.len());
    }
    let order = |i: usize| plan.runs[i * 20..(i + 1) * 20].iter().map(|r| r.point).collect::<Vec<_>>();
    assert_ne!(order(0), order(1));
    for run in &plan.runs {
        assert_eq!(run.run_id, format!("{}-{}", plan.points[run.point].point_id, run.repeat));
    }
}

#[test]
fn a_plan_survives_json_with_each_card_once() {
    let plan = plan(&AXES.join(", "));
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(json.matches("\"params\"").count(), 2);
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    let astray = json.replacen("\"gpu\":1", "\"gpu\":9", 1);
    assert!(serde_json::from_str::<Plan>(&astray).unwrap_err().to_string().contains("gpu 9 is named, of 2"));
}

/// What was shown was the number of deployments, and each is started again in every repeat.
#[test]
fn starts_and_runs_are_counted_at_least_and_at_most() {
    let mut plan = plan_of_one("batch_size = el.choice { 8, 16 }, tensor_parallel = el.choice { 1, 2 }");
    let tensor: Vec<u32> = plan.points.iter().map(|p| p.tensor_parallel).collect();
    assert_eq!(tensor, [1, 1, 2, 2]);
    let runs = |repeats: &[[usize; 4]], plan: &Plan| -> Vec<Run> {
        let of = |(repeat, points): (usize, &[usize; 4])| points.map(|p| plan.run_of(p, repeat as u32).unwrap());
        repeats.iter().enumerate().flat_map(of).collect()
    };
    plan.repeats = 2;
    // 1 1 2 2, then 2 2 1 1: the second deployment is up already when its repeat begins.
    plan.runs = runs(&[[0, 1, 2, 3], [3, 2, 1, 0]], &plan);
    assert_eq!((plan.starts(), plan.least_runs(), plan.most_runs()), ((3, 3), 8, 8));
    // The third repeat is for points that are not known well enough by then; two repeats are needed to know.
    plan.runs = runs(&[[0, 1, 2, 3], [3, 2, 1, 0], [3, 2, 1, 0]], &plan);
    plan.measure = Measure { relative_std: Some(0.02), max_repeats: 3, ..plan.measure };
    assert_eq!((plan.starts(), plan.least_runs(), plan.most_runs()), ((3, 5), 8, 12));
    plan.repeats = 1;
    assert_eq!((plan.starts(), plan.least_runs()), ((3, 5), 8));
}

#[test]
fn a_difference_is_told_in_a_few_words() {
    let (one, other) = (plan_of_one("batch_size = 8"), plan_of_one("batch_size = el.choice { 8, 16 }"));
    assert_eq!(one.difference(&one), None);
    assert_eq!(
        one.difference(&other).unwrap(),
        "new points: 1 (such as meta-llama/Llama-2-7b-hf on 1 A100-SXM4-80GB, tensor_parallel 1 pipeline_parallel 1 \
         batch_size 16 input_tokens 64 output_tokens 16)"
    );
    let mut again = one.clone();
    again.repeats = 2;
    assert_eq!(one.difference(&again).unwrap(), "repeats 1 -> 2");
}
