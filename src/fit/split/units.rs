//! What is never torn apart.
//!
//! Two rows share a unit if they are of one workload, in whatever configuration or repeat, or phases of one run, or if a
//! chain of such rows joins them. A prefill is the same measurement whatever number of tokens its request asks for, so
//! prefills of the same prompts are one workload, that of one output token, and join the runs that they were taken from.

use std::collections::{BTreeMap, BTreeSet};

use super::{canonical, numbered};
use crate::dataset::Row;
use crate::law::{Case, RowKind};
use crate::schema::Phase;

/// The unit of each row.
pub fn units(rows: &[Row]) -> Vec<usize> {
    let rows: Vec<Row> = rows.iter().map(canonical).collect();
    let workloads: Vec<String> = rows.iter().map(workload).collect();
    let mut forest = Forest((0..rows.len()).collect());
    let (mut of_workload, mut of_run) = (BTreeMap::new(), BTreeMap::new());
    for (i, (row, workload)) in rows.iter().zip(&workloads).enumerate() {
        forest.join(i, *of_workload.entry(workload.as_str()).or_insert(i));
        if let Some(run) = run(row) {
            forest.join(i, *of_run.entry(run).or_insert(i));
        }
    }
    let roots: Vec<usize> = (0..rows.len()).map(|i| forest.root(i)).collect();
    // A unit bears the name of its first workload, so that numbers do not depend on the order of the rows.
    let mut names: BTreeMap<usize, &str> = BTreeMap::new();
    for (root, workload) in roots.iter().zip(&workloads) {
        let name = names.entry(*root).or_insert(workload);
        *name = (*name).min(workload);
    }
    numbered(&roots.iter().map(|root| names.get(root).copied().unwrap_or_default().to_owned()).collect::<Vec<_>>())
}

/// The same for rows of which nothing but the case is known: without runs, a prefill belongs to every batch that begins
/// with its prompts.
pub(crate) fn case_units<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<usize> {
    let cases: Vec<&Case> = cases.into_iter().collect();
    let prompts = |c: &Case| [c.batch_size, c.input_tokens, c.active_params, c.weight_bytes].map(f64::to_bits);
    let prefills = cases.iter().filter(|c| c.row_kind() == RowKind::Prefill);
    let prefilled: BTreeSet<_> = prefills.map(|c| prompts(c)).collect();
    let key = |c: &Case| {
        let prompts = prompts(c);
        (prompts, (!prefilled.contains(&prompts)).then_some(c.output_tokens.to_bits()))
    };
    let keys: Vec<_> = cases.iter().map(|c| key(c)).collect();
    let distinct: BTreeSet<_> = keys.iter().collect();
    let number: BTreeMap<_, usize> = distinct.into_iter().enumerate().map(|(i, key)| (key, i)).collect();
    keys.iter().map(|key| number.get(key).copied().unwrap_or(0)).collect()
}

/// Sets that grow together: each entry is the index of another member of its set, or its own at the root.
struct Forest(Vec<usize>);

impl Forest {
    fn root(&mut self, of: usize) -> usize {
        let mut at = of;
        while let Some(parent) = self.0.get(at).copied().filter(|parent| *parent != at) {
            let above = self.0.get(parent).copied().unwrap_or(parent);
            if let Some(slot) = self.0.get_mut(at) {
                *slot = above;
            }
            at = parent;
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        if let Some(slot) = self.0.get_mut(one.max(other)) {
            *slot = one.min(other);
        }
    }
}

fn workload(row: &Row) -> String {
    match row.phase {
        Phase::Prefill => Row { output_tokens: 1.0, ..row.clone() }.workload_key(),
        _ => row.workload_key(),
    }
}

fn run(row: &Row) -> Option<(String, String, u64, Option<u64>)> {
    let input = row.input_tokens.map(f64::to_bits);
    (!row.run_id.is_empty()).then(|| (row.scenario_key(), row.run_id.clone(), row.batch_size.to_bits(), input))
}

#[cfg(test)]
mod tests {
    use super::super::{Pool, Scheme, splits};
    use super::*;
    use crate::fit::synthetic::row;

    /// The prefill and the whole batch of one run.
    fn run_of(run_id: &str, bare: Row) -> [Row; 2] {
        let total = Row { run_id: run_id.to_owned(), ..bare };
        [Row { phase: Phase::Prefill, output_tokens: 1.0, ..total.clone() }, total]
    }

    #[test]
    fn a_prefill_stays_with_its_whole_batch_and_with_its_like() {
        let [prefill, total] = run_of("r1", row(2, 1, 4.0, 512.0, 128.0));
        let [twin, longer] = run_of("r2", row(2, 1, 4.0, 512.0, 350.0));
        let stopped = row(8, 1, 4.0, 512.0, 1.0);
        let (alone, elsewhere) = (row(2, 1, 4.0, 512.0, 64.0), row(2, 1, 8.0, 512.0, 1.0));
        let found = units(&[prefill, total, twin, longer, stopped, alone, elsewhere]);
        // A batch that stops at its first token is the same measurement as a prefill; another length is none of these.
        assert_eq!(found[..5], [found[0]; 5]);
        assert!(found[5] != found[0] && found[6] != found[0] && found[5] != found[6], "{found:?}");
    }

    #[test]
    fn runs_join_in_a_chain_whatever_the_order() {
        // A decode that somebody counts as 39 tokens, its whole batch of 40, and a repeat of that in another run.
        let [_, total] = run_of("a", row(2, 1, 4.0, 512.0, 40.0));
        let decode = Row { phase: Phase::Decode, output_tokens: 39.0, ..total.clone() };
        let repeat = Row { run_id: "b".to_owned(), tensor_parallel: 4, ..total.clone() };
        let [prefill, _] = run_of("b", row(4, 1, 4.0, 512.0, 40.0));
        let mut rows = [decode, total, repeat, prefill];
        for _ in 0..4 {
            rows.rotate_left(1);
            assert_eq!(units(&rows), [0; 4]);
        }
        rows.reverse();
        assert_eq!(units(&rows), [0; 4]);
        // Without what lies between them, the ends have nothing in common.
        let ends: Vec<Row> =
            rows.iter().filter(|r| [Phase::Decode, Phase::Prefill].contains(&r.phase)).cloned().collect();
        assert_eq!(units(&ends).iter().collect::<BTreeSet<_>>().len(), 2);
    }

    #[test]
    fn no_prefill_is_learnt_from_that_was_held_out_in_a_run_of_another_length() {
        // Each prompt twice, once for short and once for long answers: all prefills are there twice.
        let mut rows = Vec::new();
        for batch in [1.0, 4.0, 16.0] {
            for input in [128.0, 512.0, 2048.0] {
                for output in [40.0, 350.0] {
                    for t in [1, 2, 4] {
                        rows.extend(run_of(&format!("r{}", rows.len()), row(t, 1, batch, input, output)));
                    }
                }
            }
        }
        let units = units(&rows);
        assert_eq!(units.iter().collect::<BTreeSet<_>>().len(), 9);
        let question = |i: &usize| {
            let r = rows.get(*i).expect("a row");
            (r.phase == Phase::Prefill).then(|| (r.workload_key(), r.tensor_parallel))
        };
        for split in splits(&rows, &units, Scheme::Workloads { folds: 5 }, Pool::None, 0).expect("nine units") {
            let learnt: BTreeSet<_> = split.train().iter().filter_map(question).collect();
            assert!(split.test().iter().filter_map(question).all(|q| !learnt.contains(&q)), "a prefill on both sides");
        }
    }

    #[test]
    fn cases_keep_a_prefill_with_the_batches_that_begin_with_it() {
        use crate::fit::synthetic::{group, observations};
        let skeleton = crate::law::Skeleton::default_for(crate::law::Target::EnergyJ);
        let any = observations(&skeleton, 1, 0.0, 1).remove(0).case;
        let case = |phase, batch_size, output_tokens| Case { phase, batch_size, output_tokens, ..any };
        let cases = [
            case(Phase::Prefill, 4.0, 1.0),
            case(Phase::Total, 4.0, 40.0),
            case(Phase::Total, 4.0, 350.0),
            case(Phase::Total, 8.0, 40.0),
            Case { tensor_parallel: 16.0, ..case(Phase::Total, 8.0, 40.0) },
            case(Phase::Total, 8.0, 350.0),
        ];
        let found = case_units(&cases);
        assert_eq!((found[0], found[1], found[3]), (found[1], found[2], found[4]));
        assert!(found[0] != found[3] && found[5] != found[3] && found[5] != found[0], "{found:?}");
        // Rows without prefills: each workload is a unit, as among rows.
        let rows = observations(&skeleton, 60, 0.0, 2);
        let by_row = units(&group(&rows).rows).into_iter().collect::<BTreeSet<_>>().len();
        let by_case = case_units(rows.iter().map(|o| &o.case)).into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!(by_case, by_row);
    }
}
