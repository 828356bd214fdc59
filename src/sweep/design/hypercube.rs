//! The Latin hypercube: sizes in strata, dealt out over the feasible deployments.

use std::collections::{BTreeMap, HashSet};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Accept, Choice, Counted, Deployment, LeftOut, MOST_POINTS, candidate, refusal};
use crate::sweep::Error;
use crate::sweep::axis::{Axes, Levels};

/// Draws inside a point's own strata, then anywhere on its deployment, before its place is given to another.
const DRAWS: (usize, usize) = (16, 96);

/// A Latin hypercube over the sizes, dealt out over the feasible deployments.
pub(super) struct Hypercube<'a, 'f> {
    axes: &'a Axes,
    deployments: &'a [Deployment],
    taken: HashSet<Choice>,
    /// What was drawn in vain.
    left_out: LeftOut,
    accept: &'a mut Accept<'f>,
}

impl<'a, 'f> Hypercube<'a, 'f> {
    pub(super) fn new(axes: &'a Axes, deployments: &'a [Deployment], accept: &'a mut Accept<'f>) -> Self {
        Self { axes, deployments, taken: HashSet::new(), left_out: of_draws(), accept }
    }

    /// Exactly `n` points, `prefill_share` of them with one output token; sorted.
    pub(super) fn draw(mut self, n: usize, prefill_share: f64, seed: u64) -> Result<Vec<Choice>, Error> {
        if n > MOST_POINTS {
            return Err(Error::TooMany { found: n as f64, limit: MOST_POINTS });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dealt = self.deal(n, &mut rng);
        let prefill_only = spread(n, (n as f64 * prefill_share).round() as usize, &mut rng);
        let decoding = prefill_only.iter().filter(|p| !**p).count();
        let strata = |n: usize, rng: &mut ChaCha8Rng| {
            let mut order: Vec<usize> = (0..n).collect();
            order.shuffle(rng);
            order
        };
        let (batch, input) = (strata(n, &mut rng), strata(n, &mut rng));
        let mut output = strata(decoding, &mut rng).into_iter();
        let mut left_over = [0_usize; 2];
        for (((deployment, prefill), b), s) in dealt.iter().zip(&prefill_only).zip(&batch).zip(&input) {
            let m = if *prefill { None } else { output.next() };
            if !self.place(*deployment, *prefill, [(*b, n), (*s, n), (m.unwrap_or(0), decoding)], &mut rng)? {
                left_over[usize::from(*prefill)] += 1;
            }
        }
        self.fill(n - decoding, left_over[1], true, &mut rng)?;
        self.fill(decoding, left_over[0], false, &mut rng)?;
        let mut chosen: Vec<Choice> = self.taken.into_iter().collect();
        chosen.sort_unstable();
        Ok(chosen)
    }

    /// Deployment number of each point: tensor x pipeline combinations in turn, and inside each its members in turn, so
    /// that no degree is rare because few models fit it. Sorted.
    fn deal(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let mut by_degrees: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for (i, d) in self.deployments.iter().enumerate() {
            by_degrees.entry((d.tensor_parallel, d.pipeline_parallel)).or_default().push(i as u32);
        }
        let mut groups: Vec<Vec<u32>> = by_degrees.into_values().collect();
        groups.shuffle(rng);
        groups.iter_mut().for_each(|g| g.shuffle(rng));
        let member = |i: usize| {
            let group = groups.get(i % groups.len().max(1))?;
            group.get((i / groups.len()) % group.len().max(1)).copied()
        };
        let mut dealt: Vec<u32> = (0..n).filter_map(member).collect();
        dealt.sort_unstable();
        dealt
    }

    /// Takes a feasible point on `deployment`, in the given strata (number, of how many) if there is one.
    fn place(
        &mut self,
        deployment: u32,
        prefill: bool,
        strata: [(usize, usize); 3],
        rng: &mut ChaCha8Rng,
    ) -> Result<bool, Error> {
        for attempt in 0..DRAWS.0 + DRAWS.1 {
            let mut u = || strata_draw(rng, attempt < DRAWS.0);
            let [b, s, m] = strata.map(|(number, of)| u().within(number, of));
            let output = if prefill { 1 } else { self.axes.output_tokens.quantile(m) };
            let choice = (deployment, self.axes.batch_size.quantile(b), self.axes.input_tokens.quantile(s), output);
            if self.take(choice)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, choice: Choice) -> Result<bool, Error> {
        let Some(c) = candidate(choice, self.deployments) else { return Ok(false) };
        if self.taken.contains(&choice) {
            return Ok(false);
        }
        if self.left_out.what == Counted::Draws {
            self.left_out.of += 1;
        }
        if let Some(reason) = refusal(&c, self.accept)? {
            self.left_out.add(reason, 1);
            return Ok(false);
        }
        self.taken.insert(choice);
        Ok(true)
    }

    /// Finds places for the points that their own deployment had no room for.
    fn fill(&mut self, asked: usize, missing: usize, prefill: bool, rng: &mut ChaCha8Rng) -> Result<(), Error> {
        let mut missing = missing;
        let anywhere = [(0, 1); 3];
        for _ in 0..missing.saturating_mul(4).min(4096) {
            if missing == 0 {
                return Ok(());
            }
            let deployment = rng.random_range(0..self.deployments.len().max(1) as u32);
            missing -= usize::from(self.place(deployment, prefill, anywhere, rng)?);
        }
        if missing == 0 {
            return Ok(());
        }
        let kind = if prefill { "prefill-only points" } else { "points that decode" };
        let sizes = |l: &Levels| l.len() as f64;
        let outputs = if prefill { 1.0 } else { sizes(&self.axes.output_tokens) };
        let all =
            self.deployments.len() as f64 * sizes(&self.axes.batch_size) * sizes(&self.axes.input_tokens) * outputs;
        let found = asked - missing;
        if all > MOST_POINTS as f64 {
            let feasible = format!("a search of {} draws found {found}, and probably few more", self.left_out.of);
            return Err(Error::TooFewFeasible { asked, kind, feasible, left_out: self.left_out });
        }
        self.left_out = LeftOut { of: all as u64, what: Counted::Combinations, ..LeftOut::default() };
        let mut rest = self.rest(prefill)?;
        if rest.len() < missing {
            let feasible = (found + rest.len()).to_string();
            return Err(Error::TooFewFeasible { asked, kind, feasible, left_out: self.left_out });
        }
        rest.shuffle(rng);
        self.taken.extend(rest.into_iter().take(missing));
        Ok(())
    }

    /// Every feasible point not taken yet.
    fn rest(&mut self, prefill: bool) -> Result<Vec<Choice>, Error> {
        let axes = self.axes;
        let outputs: Vec<u32> = if prefill { vec![1] } else { axes.output_tokens.values().collect() };
        let mut rest = Vec::new();
        for d in 0..self.deployments.len() as u32 {
            for b in axes.batch_size.values() {
                for s in axes.input_tokens.values() {
                    for m in &outputs {
                        let choice = (d, b, s, *m);
                        if self.take(choice)? {
                            self.taken.remove(&choice);
                            rest.push(choice);
                        }
                    }
                }
            }
        }
        Ok(rest)
    }
}

fn of_draws() -> LeftOut {
    LeftOut { what: Counted::Draws, ..LeftOut::default() }
}

/// A number in [0, 1), and whether it stays inside its stratum.
struct Draw {
    u: f64,
    stratified: bool,
}

fn strata_draw(rng: &mut ChaCha8Rng, stratified: bool) -> Draw {
    Draw { u: rng.random::<f64>(), stratified }
}

impl Draw {
    fn within(&self, number: usize, of: usize) -> f64 {
        if self.stratified { (number as f64 + self.u) / of.max(1) as f64 } else { self.u }
    }
}

/// `k` of `n` places, evenly spread from a random start.
fn spread(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let start: f64 = rng.random();
    let mut places = vec![false; n];
    for j in 0..k.min(n) {
        let place = ((j as f64 + start) / k as f64 * n as f64) as usize;
        if let Some(p) = places.get_mut(place.min(n.saturating_sub(1))) {
            *p = true;
        }
    }
    places
}
