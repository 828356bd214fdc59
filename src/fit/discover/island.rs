//! One island: an archive of the best candidates of each size, and the moves that make new ones of them.
//!
//! Sizes do not compete with each other, so nothing is gained by growing for a per mille. All randomness is one stream
//! per island, and islands meet at migrations only: what comes out does not depend on which thread did what.

use std::collections::{BTreeMap, HashSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::genome::{Gene, Genome, PHASES, tensor_base};
use super::ground::Ground;
use super::kernel::Form;
use super::score::{Dealing, Trained, held_out, mean_square, train};

/// Candidates kept of each size.
const KEPT: usize = 5;
/// Offspring of one generation.
pub(super) const OFFSPRING: usize = 24;
/// Candidates of one size whose scores differ by less than this are one law written twice; the first is kept.
const TWINS: f64 = 1e-4;
/// Chance of taking the next best instead of the best, of parents and of quantities alike.
const NEXT_BEST: f64 = 0.55;

/// A candidate with its worth.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) genome: Genome,
    /// Mean robust squared log error of held-out rows.
    pub(super) score: f64,
}

pub(super) struct Island {
    rng: ChaCha8Rng,
    /// Its own: what fits the folds of one island by luck meets others on the next.
    dealing: Dealing,
    /// Best first, by complexity.
    pub(super) archive: BTreeMap<usize, Vec<Candidate>>,
    seen: HashSet<Genome>,
    max_terms: usize,
    pub(super) evaluations: u64,
}

impl Island {
    pub(super) fn new(dealing: Dealing, seed: u64, number: u64, max_terms: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number + 1);
        Self { rng, dealing, archive: BTreeMap::new(), seen: HashSet::new(), max_terms, evaluations: 0 }
    }

    /// The first candidates: everything at once, non-negative, which leaves a few dozen terms; the largest of those.
    pub(super) fn settle(&mut self, ground: &Ground) {
        let mut powers: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
        for slot in &mut powers {
            slot.extend(tensor_base().filter(|b| ground.bases.contains(b) && self.rng.random_bool(0.7)));
            let others: Vec<usize> = ground.bases.iter().copied().filter(|b| Some(*b) != tensor_base()).collect();
            if !others.is_empty() && self.rng.random_bool(0.7) {
                slot.extend(others.get(self.rng.random_range(0..others.len())));
            }
        }
        let genes = (0..ground.quantities.len()).map(|quantity| Gene { quantity, scaled: self.rng.random_bool(0.8) });
        let everything = Genome { genes: genes.collect(), powers: powers.clone() }.canonical(ground);
        let held = Genome { powers: [Vec::new(), Vec::new()], ..everything.clone() }.canonical(ground);
        let mut shares = vec![0.0; held.genes.len()];
        for scope in &ground.scopes {
            let form = Form::new(ground, scope, &held);
            let rows: Vec<usize> = (0..scope.rows()).collect();
            let numbers = form.fit(&rows);
            shares.iter_mut().zip(form.shares(&numbers)).for_each(|(s, own)| *s += own);
        }
        let mut ranked: Vec<(f64, Gene)> = shares.into_iter().zip(everything.genes.iter().copied()).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for count in 1..=self.max_terms {
            let genes = ranked.iter().take(count).filter(|(share, _)| *share > 0.0).map(|(_, gene)| *gene).collect();
            self.consider(Genome { genes, powers: powers.clone() }, ground);
        }
    }

    /// One generation.
    pub(super) fn evolve(&mut self, ground: &Ground) {
        for _ in 0..OFFSPRING {
            if let Some(child) = self.offspring(ground) {
                self.consider(child, ground);
            }
        }
    }

    /// Takes in candidates of another island, as far as they hold on this one's folds.
    pub(super) fn welcome(&mut self, ground: &Ground, guests: &[Candidate]) {
        for guest in guests {
            self.consider(guest.genome.clone(), ground);
        }
    }

    /// The best of each size.
    pub(super) fn best(&self) -> Vec<Candidate> {
        self.archive.values().filter_map(|kept| kept.first().cloned()).collect()
    }

    fn consider(&mut self, genome: Genome, ground: &Ground) {
        let genome = genome.canonical(ground);
        if genome.genes.is_empty() || genome.genes.len() > self.max_terms || !self.seen.insert(genome.clone()) {
            return;
        }
        self.evaluations += 1;
        let Trained { numbers, error } = train(ground, &genome, &self.dealing);
        // A term that comes to nothing in every law is no term: the candidate is the smaller one.
        let speaks = |place: usize| numbers.iter().any(|n| n.coefficients.get(place).is_some_and(|k| *k > 0.0));
        if !(0..genome.genes.len()).all(speaks) {
            let genes = genome.genes.iter().enumerate().filter(|(place, _)| speaks(*place)).map(|(_, g)| *g).collect();
            return self.consider(Genome { genes, ..genome }, ground);
        }
        // Held-out rows are never predicted better than fitted ones, but for luck: folds are not spent on a hopeless case.
        let complexity = genome.complexity(ground);
        let worst = |kept: &Vec<Candidate>| kept.get(KEPT - 1).map(|c| c.score);
        if self.archive.get(&complexity).and_then(worst).is_some_and(|worst| error > worst) {
            return;
        }
        let score = mean_square(&held_out(ground, &genome, &self.dealing, &numbers));
        if score.is_finite() {
            self.keep(Candidate { genome, score }, ground);
        }
    }

    fn keep(&mut self, candidate: Candidate, ground: &Ground) {
        let kept = self.archive.entry(candidate.genome.complexity(ground)).or_default();
        let place = kept.partition_point(|c| (c.score, &c.genome) < (candidate.score, &candidate.genome));
        let twin = |c: &Candidate| (c.score - candidate.score).abs() <= TWINS * candidate.score;
        let next_to = place.saturating_sub(1)..(place + 1).min(kept.len());
        if kept.get(next_to).is_some_and(|near| near.iter().any(twin)) {
            return;
        }
        kept.insert(place, candidate);
        kept.truncate(KEPT);
    }

    /// Geometric: 0 most often.
    fn rank(&mut self, count: usize) -> usize {
        let mut rank = 0;
        while rank + 1 < count && self.rng.random_bool(NEXT_BEST) {
            rank += 1;
        }
        rank
    }

    fn parent(&mut self) -> Option<Genome> {
        let sizes = self.archive.len();
        if sizes == 0 {
            return None;
        }
        let size = self.rng.random_range(0..sizes);
        let count = self.archive.values().nth(size).map_or(0, Vec::len);
        let place = self.rank(count);
        self.archive.values().nth(size).and_then(|kept| kept.get(place)).map(|c| c.genome.clone())
    }

    fn offspring(&mut self, ground: &Ground) -> Option<Genome> {
        let mut child = self.parent()?;
        match self.rng.random_range(0..100) {
            0..20 => self.birth(&mut child, ground),
            20..30 => self.death(&mut child),
            30..60 => {
                self.death(&mut child);
                self.birth(&mut child, ground);
            }
            60..72 => self.neighbour(&mut child, ground),
            72..79 => self.toggle(&mut child),
            79..89 => self.power(&mut child, ground),
            89..94 => self.merge(&mut child, ground),
            _ => self.cross(&mut child),
        }
        // A change of one thing often needs another.
        if self.rng.random_bool(0.25) {
            match self.rng.random_range(0..3) {
                0 => self.neighbour(&mut child, ground),
                1 => self.power(&mut child, ground),
                _ => self.death(&mut child),
            }
        }
        Some(child)
    }

    /// A term more: mostly one that explains what is left over.
    fn birth(&mut self, child: &mut Genome, ground: &Ground) {
        *child = std::mem::take(child).canonical(ground);
        let count = ground.quantities.len();
        if count == 0 {
            return;
        }
        let gene = if child.genes.is_empty() || self.rng.random_bool(0.15) {
            Gene { quantity: self.rng.random_range(0..count), scaled: self.rng.random_bool(0.7) }
        } else {
            let ranked = explaining(ground, child, &self.dealing);
            let place = self.rank(ranked.len());
            let Some(gene) = ranked.get(place) else { return };
            *gene
        };
        child.genes.push(gene);
    }

    fn death(&mut self, child: &mut Genome) {
        if child.genes.len() > 1 {
            child.genes.remove(self.rng.random_range(0..child.genes.len()));
        }
    }

    /// One power of one product moves: the nearest other quantities of the grammar.
    fn neighbour(&mut self, child: &mut Genome, ground: &Ground) {
        if child.genes.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..child.genes.len());
        let near = child.genes.get(place).and_then(|g| ground.neighbours.get(g.quantity)).cloned().unwrap_or_default();
        let rank = self.rank(near.len());
        if let (Some(gene), Some(quantity)) = (child.genes.get_mut(place), near.get(rank)) {
            gene.quantity = *quantity;
        }
    }

    fn toggle(&mut self, child: &mut Genome) {
        if !child.genes.is_empty() {
            let place = self.rng.random_range(0..child.genes.len());
            if let Some(gene) = child.genes.get_mut(place) {
                gene.scaled = !gene.scaled;
            }
        }
    }

    /// A fitted power comes, goes, or stands on something else.
    fn power(&mut self, child: &mut Genome, ground: &Ground) {
        if ground.bases.is_empty() {
            return;
        }
        let phase = self.rng.random_range(0..PHASES.len());
        let base = ground.bases.get(self.rng.random_range(0..ground.bases.len())).copied();
        let (Some(bases), Some(base)) = (child.powers.get_mut(phase), base) else { return };
        let fresh = bases.is_empty();
        if bases.contains(&base) {
            bases.retain(|b| *b != base);
        } else {
            // One power for tensor parallelism, one for the pipeline: two of the latter are told apart by luck.
            let tensor = |b: &usize| Some(*b) == tensor_base();
            bases.retain(|b| tensor(b) != tensor(&base));
            bases.push(base);
        }
        if fresh {
            child.genes.iter_mut().for_each(|g| g.scaled = true);
        }
    }

    /// Two terms become the one that stands for both best.
    fn merge(&mut self, child: &mut Genome, ground: &Ground) {
        self.death(child);
        self.death(child);
        self.birth(child, ground);
    }

    fn cross(&mut self, child: &mut Genome) {
        let Some(other) = self.parent() else { return };
        for (own, theirs) in child.powers.iter_mut().zip(&other.powers) {
            if self.rng.random_bool(0.5) {
                own.clone_from(theirs);
            }
        }
        let target = child.genes.len();
        child.genes.extend(other.genes);
        child.genes.sort_unstable();
        child.genes.dedup_by_key(|g| g.quantity);
        while child.genes.len() > target.max(1) {
            child.genes.remove(self.rng.random_range(0..child.genes.len()));
        }
    }
}

/// Genes beside those of `genome`, the one that would explain most first.
fn explaining(ground: &Ground, genome: &Genome, dealing: &Dealing) -> Vec<Gene> {
    /// More are never looked at.
    const LISTED: usize = 12;
    let trained = train(ground, genome, dealing);
    let mut gains = vec![[0.0; 2]; ground.quantities.len()];
    for (scope, numbers) in ground.scopes.iter().zip(&trained.numbers) {
        let own = Form::new(ground, scope, genome).gains(ground, genome, numbers);
        for (sum, gain) in gains.iter_mut().zip(own) {
            sum.iter_mut().zip(gain).for_each(|(s, g)| *s += g);
        }
    }
    let genes = gains.iter().enumerate().flat_map(|(quantity, gain)| {
        // A picked power costs a parameter: it must explain more to come first.
        let cost = ground.quantities.get(quantity).map_or(1.0, |q| q.cost as f64);
        [(gain[0] / cost, Gene { quantity, scaled: false }), (gain[1] / cost, Gene { quantity, scaled: true })]
    });
    let mut ranked: Vec<(f64, Gene)> = genes.filter(|(gain, _)| *gain > 0.0).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().take(LISTED).map(|(_, gene)| gene).collect()
}
