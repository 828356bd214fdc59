//! From runs to tasks: what one job of an array carries out.
//!
//! Runs that need the same GPUs make one class, and a class is submitted as arrays of its own, since all tasks of an
//! array get the same resources. Within a class runs keep the plan's order; those of one deployment stay together, and
//! small deployments share a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sweep::{Measure, Plan, Point, Run, SlurmSpec};

/// Runs of a task where neither the sweep nor a time limit says how many.
const USUAL_RUNS: usize = 25;
/// Most runs of a task where only a time limit speaks.
const MOST_RUNS: usize = 200;
/// What starting a server may take, s: minutes for large models.
const START_S: f64 = 300.0;
/// Share of the time limit that the runs shall take: they are guessed, and a task that is late is only interrupted.
const SHARE: f64 = 0.5;
/// Longest notice before a time limit, s.
const LONGEST_NOTICE_S: u64 = 120;

/// What all tasks of an array have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// GPUs of each run.
    pub num_gpus: u32,
    /// Their model.
    pub gpu_model: String,
}

impl Class {
    fn of(point: &Point) -> Self {
        Self { num_gpus: point.num_gpus(), gpu_model: point.gpu.gpu_model.clone() }
    }
}

/// The tasks of one class; runs by their places in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What they have in common.
    pub class: Class,
    /// The runs of each task, in order.
    pub tasks: Vec<Vec<usize>>,
}

/// The wanted runs of `plan` as tasks, by class.
///
/// Where points are repeated until they are precise, all repeats of a point are in one task, in the plan's order: it
/// alone knows what they came to.
pub fn blocks(plan: &Plan, spec: &SlurmSpec, wanted: &dyn Fn(&Run) -> bool) -> Vec<Block> {
    let most = runs_per_task(spec, &plan.measure);
    if plan.measure.relative_std.is_some() {
        return whole_points(plan, most, wanted);
    }
    // Groups: neighbours of one deployment, seen within the class.
    let mut classes: BTreeMap<Class, Vec<Vec<usize>>> = BTreeMap::new();
    for (place, run) in plan.runs.iter().enumerate().filter(|(_, run)| wanted(run)) {
        let Some(point) = plan.points.get(run.point) else { continue };
        let groups = classes.entry(Class::of(point)).or_default();
        let before = groups.last().and_then(|g| g.last()).and_then(|&last| plan.points.get(plan.runs.get(last)?.point));
        match groups.last_mut() {
            Some(group) if before.is_some_and(|b| b.shares_deployment(point)) => group.push(place),
            _ => groups.push(vec![place]),
        }
    }
    classes.into_iter().map(|(class, groups)| Block { class, tasks: packed(groups, most) }).collect()
}

/// Tasks of whole points, neighbours of one deployment together; a point with more runs than `most` is a task.
fn whole_points(plan: &Plan, most: usize, wanted: &dyn Fn(&Run) -> bool) -> Vec<Block> {
    let mut runs_of: Vec<Vec<usize>> = vec![Vec::new(); plan.points.len()];
    for (place, run) in plan.runs.iter().enumerate().filter(|(_, run)| wanted(run)) {
        if let Some(runs) = runs_of.get_mut(run.point) {
            runs.push(place);
        }
    }
    let mut classes: BTreeMap<Class, Vec<Vec<usize>>> = BTreeMap::new();
    for (point, runs) in plan.points.iter().zip(runs_of).filter(|(_, runs)| !runs.is_empty()) {
        let tasks = classes.entry(Class::of(point)).or_default();
        match tasks.last_mut().filter(|task| task.len() + runs.len() <= most) {
            Some(task) => task.extend(runs),
            None => tasks.push(runs),
        }
    }
    for task in classes.values_mut().flatten() {
        task.sort_unstable();
    }
    classes.into_iter().map(|(class, tasks)| Block { class, tasks }).collect()
}

fn packed(groups: Vec<Vec<usize>>, most: usize) -> Vec<Vec<usize>> {
    let mut tasks: Vec<Vec<usize>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for group in groups {
        if open.len() + group.len() > most && !open.is_empty() {
            tasks.push(std::mem::take(&mut open));
        }
        if group.len() > most {
            // Pieces of about the same length, none longer than `most`.
            let pieces = group.len().div_ceil(most);
            tasks.extend(group.chunks(group.len().div_ceil(pieces)).map(<[usize]>::to_vec));
        } else {
            open.extend(group);
        }
    }
    if !open.is_empty() {
        tasks.push(open);
    }
    tasks
}

/// How many runs make a task.
pub fn runs_per_task(spec: &SlurmSpec, measure: &Measure) -> usize {
    if let Some(asked) = spec.runs_per_task {
        return asked.max(1) as usize;
    }
    let Some(limit_s) = spec.time_limit_s() else { return USUAL_RUNS };
    // Two windows, each longer than asked by up to a batch.
    let run_s = measure.idle_s + 2.5 * measure.min_window_s + 1.0 + 2.0 * f64::from(measure.warmup_batches);
    let usable_s = SHARE * (limit_s as f64) - START_S;
    ((usable_s / run_s).max(1.0) as usize).clamp(1, MOST_RUNS)
}

/// How long before its time limit a task is told, s.
pub fn notice_s(spec: &SlurmSpec) -> u64 {
    let usual = spec.time_limit_s().map_or(LONGEST_NOTICE_S, |limit_s| {
        // At a limit of seconds ten of them are all there is.
        (limit_s / 20).clamp(10, LONGEST_NOTICE_S).min(limit_s.div_ceil(2))
    });
    spec.stop_early_s.map_or(usual, u64::from)
}

/// Slurm tells up to a minute too early, and the program takes some seconds to begin.
const NOTICE_SLACK_S: u64 = 90;
/// So often a task that got nothing done is started again where nobody knows its time limit.
const MOST_RESTARTS: u32 = 3;

/// What a task knows of its time when it is asked to stop.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Seconds until its time limit, where that is known.
    pub left_s: Option<u64>,
    /// How often Slurm has started it again.
    pub restarts: u32,
}

/// Whether a task that is stopped before it got anything done may get further the next time: it gave way to another job
/// with time left. At its time limit it would only repeat what it did.
pub fn is_worth_another_try(spec: &SlurmSpec, clock: Clock) -> bool {
    match clock.left_s {
        Some(left_s) => left_s > notice_s(spec).saturating_add(NOTICE_SLACK_S),
        None => clock.restarts < MOST_RESTARTS,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::sweep::OptionValue;

    fn plan(repeats: u32) -> Plan {
        let source = format!(
            "local el = require 'energylens'\nreturn el.sweep {{ name = 'b', seed = 5, repeats = {repeats}, axes = {{\n\
             model = 'llama-2-7b', gpu_model = el.choice {{ 'a100', 'h100' }}, tensor_parallel = el.choice {{ 1, 2, 4 }},\n\
             pipeline_parallel = el.choice {{ 1, 2 }}, batch_size = el.choice {{ 1, 2, 3 }}, input_tokens = 64,\n\
             output_tokens = 16 }}, design = el.factorial {{}}, workload = el.simulated {{ gpus = 8 }} }}"
        );
        Plan::from_source("b.lua", &source, Path::new("."), &mut |_| ()).unwrap()
    }

    #[test]
    fn packing_is_as_by_hand() {
        let group = |from: usize, len: usize| (from..from + len).collect::<Vec<_>>();
        let lengths = |groups: Vec<Vec<usize>>, most| packed(groups, most).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(vec![group(0, 3), group(3, 3), group(6, 3)], 6), [6, 3]);
        assert_eq!(lengths(vec![group(0, 3), group(3, 4)], 6), [3, 4]);
        assert_eq!(lengths(vec![group(0, 2), group(2, 10), group(12, 2)], 4), [2, 4, 4, 2, 2]);
        assert_eq!(lengths(vec![], 4), [0_usize; 0]);
    }

    #[test]
    fn a_time_limit_makes_tasks_that_fit_into_it() {
        let measure =
            Measure { min_window_s: 10.0, idle_s: 2.0, warmup_batches: 1, max_batches: 10, ..Measure::default() };
        let spec = |time: Option<u64>, runs_per_task| SlurmSpec {
            options: time.map(|m| ("time".to_owned(), OptionValue::Whole(m))).into_iter().collect(),
            runs_per_task,
            ..SlurmSpec::default()
        };
        // Half of an hour less 300 s, 30 s each: (1800 - 300) / 30 = 50.
        assert_eq!(runs_per_task(&spec(Some(60), None), &measure), 50);
        assert_eq!(runs_per_task(&spec(Some(1), None), &measure), 1);
        assert_eq!(runs_per_task(&spec(None, None), &measure), 25);
        assert_eq!(runs_per_task(&spec(Some(60), Some(7)), &measure), 7);
        assert_eq!((notice_s(&spec(Some(60), None)), notice_s(&spec(Some(1), None))), (120, 10));
        // No limit, not one of no time.
        assert_eq!((runs_per_task(&spec(Some(0), None), &measure), notice_s(&spec(Some(0), None))), (25, 120));
    }

    /// A task that was preempted before its first run ended gave up for good, as if its time had been too short.
    #[test]
    fn a_task_that_gave_way_with_time_left_is_worth_another_try() {
        let spec = SlurmSpec { options: [("time".to_owned(), OptionValue::Whole(60))].into(), ..SlurmSpec::default() };
        let worth = |left_s, restarts| is_worth_another_try(&spec, Clock { left_s, restarts });
        // Told 120 s before the limit, or up to a minute earlier.
        assert!(worth(Some(3000), 9) && worth(Some(211), 0));
        assert!(!worth(Some(210), 0) && !worth(Some(120), 0) && !worth(Some(0), 0));
        assert!(worth(None, 2) && !worth(None, 3));
    }

    #[test]
    fn all_repeats_of_a_point_are_in_one_task_where_they_depend_on_each_other() {
        let measure = Measure { relative_std: Some(0.01), max_repeats: 4, ..Measure::default() };
        let plan = Plan { measure, ..plan(4) };
        let spec = SlurmSpec { runs_per_task: Some(10), ..SlurmSpec::default() };
        let blocks = blocks(&plan, &spec, &|_| true);
        // 3 batch sizes x 6 splits on 2 GPUs: 1, 2 (twice), 4 (twice) and 8 of each; 2 points of 4 runs fit into 10.
        let tasks = |num_gpus| blocks.iter().filter(move |b| b.class.num_gpus == num_gpus).flat_map(|b| &b.tasks);
        assert_eq!(
            [1, 2, 4, 8].map(|n| tasks(n).map(Vec::len).collect::<Vec<_>>()),
            [vec![8, 4, 8, 4], vec![8, 8, 8, 8, 8, 8], vec![8, 8, 8, 8, 8, 8], vec![8, 4, 8, 4],]
        );
        let mut home = std::collections::HashMap::new();
        for (number, task) in blocks.iter().flat_map(|b| &b.tasks).enumerate() {
            assert!(task.is_sorted(), "the plan's order");
            for &place in task {
                assert_eq!(*home.entry(plan.runs[place].point).or_insert(number), number, "a point in two tasks");
            }
        }
        assert_eq!(home.len(), plan.points.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_wanted_run_is_in_one_task_of_its_class(most in 1..40_u32, repeats in 1..4_u32, skip in 1..7_usize) {
            let plan = plan(repeats);
            let skipped: HashSet<&str> = plan.runs.iter().step_by(skip + 1).map(|r| r.run_id.as_str()).collect();
            let spec = SlurmSpec { runs_per_task: Some(most), ..SlurmSpec::default() };
            let blocks = blocks(&plan, &spec, &|run| !skipped.contains(run.run_id.as_str()));
            let mut seen = BTreeSet::new();
            for block in &blocks {
                for task in &block.tasks {
                    prop_assert!(!task.is_empty() && task.len() <= most as usize);
                    for &place in task {
                        let point = &plan.points[plan.runs[place].point];
                        prop_assert_eq!(point.num_gpus(), block.class.num_gpus);
                        prop_assert_eq!(&point.gpu.gpu_model, &block.class.gpu_model);
                        prop_assert!(seen.insert(place), "twice");
                    }
                    // Runs of one deployment and repeat are neighbours: none comes back after another.
                    let mut deployments: Vec<_> = task.iter().map(|&p| {
                        let (run, point) = (&plan.runs[p], &plan.points[plan.runs[p].point]);
                        (run.repeat, point.tensor_parallel, point.pipeline_parallel)
                    }).collect();
                    deployments.dedup();
                    prop_assert_eq!(deployments.len(), deployments.iter().collect::<BTreeSet<_>>().len());
                }
            }
            prop_assert_eq!(seen.len(), plan.runs.len() - skipped.len());
        }
    }
}
