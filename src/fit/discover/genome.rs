//! A candidate: which quantities add up, and which fitted powers stand on those of a phase.

use super::ground::Ground;
use crate::law::{Symbol, TermGroup};

/// The phases whose terms may share fitted powers.
pub(super) const PHASES: [TermGroup; 2] = [TermGroup::Prefill, TermGroup::Decode];

/// One term of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Gene {
    /// Index into [`Ground::quantities`].
    pub(super) quantity: usize,
    /// Whether the fitted powers of its phase stand on it.
    pub(super) scaled: bool,
}

/// A skeleton in the making. Canonical: genes sorted and distinct, powers only where a gene uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Genome {
    pub(super) genes: Vec<Gene>,
    /// Per phase of [`PHASES`], the bases (index into [`Symbol::SCALABLE`]) of its fitted powers, sorted.
    pub(super) powers: [Vec<usize>; 2],
}

/// The index of the phase whose powers may stand on a quantity.
pub(super) fn phase_of(ground: &Ground, gene: Gene) -> Option<usize> {
    let quantity = ground.quantities.get(gene.quantity)?;
    PHASES.iter().position(|g| *g == quantity.group).filter(|_| gene.scaled)
}

impl Genome {
    /// Brings it into the one form that equal candidates share.
    pub(super) fn canonical(mut self, ground: &Ground) -> Self {
        let scalable = |g: &Gene| ground.quantities.get(g.quantity).is_some_and(|q| q.is_scalable());
        for gene in &mut self.genes {
            let phase = phase_of(ground, Gene { scaled: true, ..*gene });
            let has_powers = phase.and_then(|p| self.powers.get(p)).is_some_and(|p| !p.is_empty());
            gene.scaled &= scalable(gene) && has_powers;
        }
        self.genes.sort_unstable();
        self.genes.dedup();
        let used: Vec<usize> = self.genes.iter().filter_map(|g| phase_of(ground, *g)).collect();
        for (phase, powers) in self.powers.iter_mut().enumerate() {
            powers.retain(|_| used.contains(&phase));
            powers.sort_unstable();
            powers.dedup();
        }
        self
    }

    /// Fitted numbers.
    pub(super) fn parameters(&self) -> usize {
        self.genes.len() + self.powers.iter().map(Vec::len).sum::<usize>()
    }

    /// Fitted numbers, and powers that were picked to suit.
    pub(super) fn complexity(&self, ground: &Ground) -> usize {
        let cost = |g: &Gene| ground.quantities.get(g.quantity).map_or(1, |q| q.cost);
        self.genes.iter().map(cost).sum::<usize>() + self.powers.iter().map(Vec::len).sum::<usize>()
    }

    /// Every fitted power: its phase and base, in the order of the exponents.
    pub(super) fn exponents(&self) -> Vec<(usize, usize)> {
        let of = |(phase, bases): (usize, &Vec<usize>)| bases.iter().map(|b| (phase, *b)).collect::<Vec<_>>();
        self.powers.iter().enumerate().flat_map(of).collect()
    }
}

/// The base that stands for tensor parallelism.
pub(super) fn tensor_base() -> Option<usize> {
    Symbol::SCALABLE.iter().position(|s| *s == Symbol::TensorParallel)
}
