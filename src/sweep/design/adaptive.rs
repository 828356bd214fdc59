//! The adaptive design: candidates in the order in which they say most before anything is known.

use super::{Accept, Choice, Deployment, LeftOut, factorial, optimal};
use crate::sweep::Error;
use crate::sweep::adaptive::{Adaptive, AdaptiveRule, FEWEST_START_POINTS};
use crate::sweep::axis::{Axes, Levels};

/// What may be measured: every feasible combination, where the axes are choices and have no more of them; else so many
/// feasible points, evenly spread, or as many as there are.
///
/// Even, since 95 % of them stand for 95 % of what the axes span. A grid over ranges has most of its points at the edges.
pub(super) fn candidates(
    rule: AdaptiveRule,
    axes: &Axes,
    deployments: &[Deployment],
    left_out: &mut LeftOut,
    accept: &mut Accept<'_>,
    seed: u64,
) -> Result<Vec<Choice>, Error> {
    let sizes = [&axes.batch_size, &axes.input_tokens, &axes.output_tokens];
    let combinations: f64 = sizes.iter().map(|levels| levels.len() as f64).product();
    let are_choices = sizes.iter().all(|levels| matches!(levels, Levels::Choice(_)));
    if are_choices && combinations * deployments.len() as f64 <= rule.candidates as f64 {
        return factorial(axes, deployments, left_out, accept);
    }
    optimal::pool(axes, deployments, accept, (rule.candidates, rule.start), seed)
}

/// The order of `candidates`, which are sorted.
///
/// A law holds for one model, GPU and precision: each of these begins with its own share of the start, as D-optimal as
/// it can be, and they take turns.
pub(super) fn lay_out(
    rule: AdaptiveRule,
    candidates: &[Choice],
    deployments: &[Deployment],
) -> Result<Adaptive, Error> {
    let groups = groups(candidates, deployments);
    if rule.start < FEWEST_START_POINTS * groups.len() {
        return Err(Error::StartTooSmall {
            start: rule.start,
            laws: groups.len(),
            needed: FEWEST_START_POINTS * groups.len(),
        });
    }
    if candidates.len() < rule.start {
        let feasible = candidates.len().to_string();
        let kind = "points to start with";
        return Err(Error::TooFewFeasible { asked: rule.start, kind, feasible, left_out: LeftOut::default() });
    }
    let turns = |of: Vec<Vec<usize>>| -> Vec<usize> {
        let longest = of.iter().map(Vec::len).max().unwrap_or(0);
        (0..longest).flat_map(|turn| of.iter().filter_map(move |list| list.get(turn).copied())).collect()
    };
    let shares = shares(rule.start, &groups);
    let (mut starts, mut others) = (Vec::new(), Vec::new());
    for ((first, count), share) in groups.into_iter().zip(shares) {
        let own = candidates.get(first..first + count).unwrap_or_default();
        let mut order = optimal::order(own, deployments, share, rule.max_points);
        order.iter_mut().for_each(|place| *place += first);
        others.push(order.split_off(share.min(order.len())));
        starts.push(order);
    }
    let mut order = turns(starts);
    order.extend(turns(others));
    order.truncate(rule.max_points.max(rule.start));
    Ok(Adaptive { rule, order })
}

/// First place and number of the candidates of each law, in their order.
fn groups(candidates: &[Choice], deployments: &[Deployment]) -> Vec<(usize, usize)> {
    let law =
        |choice: &Choice| deployments.get(choice.0 as usize).map(|d| (&d.model.model, &d.gpu.gpu_model, &d.precision));
    let mut first = 0;
    let chunks = candidates.chunk_by(|a, b| law(a) == law(b));
    let place = chunks.map(|chunk| {
        first += chunk.len();
        (first - chunk.len(), chunk.len())
    });
    place.collect()
}

/// How many points of the start each group has: as many as the others, unless it has no more.
fn shares(start: usize, groups: &[(usize, usize)]) -> Vec<usize> {
    let mut shares = vec![0; groups.len()];
    let mut left = start;
    while left > 0 {
        let before = left;
        for (share, (_, count)) in shares.iter_mut().zip(groups) {
            if left > 0 && *share < *count {
                (*share, left) = (*share + 1, left - 1);
            }
        }
        if left == before {
            break;
        }
    }
    shares
}
