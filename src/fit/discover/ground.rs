//! The ground that candidates are judged on: rows of every law, and what each quantity of the grammar is on them,
//! computed once so that a candidate costs microseconds.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::catalogue::{Quantity, catalogue};
use super::genome::{Gene, Genome, PHASES};
use crate::card::GpuCard;
use crate::fit::group::Group;
use crate::fit::problem::{Observation, SIGMA0};
use crate::law::{Skeleton, Symbol, Target, Term};

/// Folds of the cross-validation.
pub(super) const FOLDS: usize = 5;
/// Quantities whose ratio varies by less than this over all rows are one quantity.
const SAME: f64 = 1e-9;

/// The rows of one law.
pub(super) struct Scope {
    pub(super) observations: Vec<Observation>,
    /// Per quantity, its value on every row over the measured energy of the row.
    pub(super) columns: Vec<Vec<f64>>,
    /// Per symbol of [`Symbol::SCALABLE`], its logarithm on every row.
    pub(super) ln_bases: Vec<Vec<f64>>,
    pub(super) weights: Vec<f64>,
    /// Per quantity, the coefficient that the GPU's data sheet expects.
    pub(super) expected: Vec<Option<f64>>,
    /// The indivisible unit of each row: what is held out together.
    pub(super) units: Vec<usize>,
}

impl Scope {
    pub(super) fn rows(&self) -> usize {
        self.observations.len()
    }

    /// Deals units into folds: the fold of each row.
    pub(super) fn folds(&self, seed: u64) -> Vec<usize> {
        let mut distinct = self.units.clone();
        distinct.sort_unstable();
        distinct.dedup();
        distinct.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let place = |unit: &usize| distinct.iter().position(|u| u == unit).unwrap_or(0) % FOLDS;
        self.units.iter().map(place).collect()
    }
}

/// Everything a search looks at; it never changes.
pub(super) struct Ground {
    pub(super) quantities: Vec<Quantity>,
    pub(super) scopes: Vec<Scope>,
    /// Bases (index into [`Symbol::SCALABLE`]) whose fitted powers the rows can tell from 1 and from each other.
    pub(super) bases: Vec<usize>,
    /// Per quantity, its neighbours in the grammar, nearest first.
    pub(super) neighbours: Vec<Vec<usize>>,
}

impl Ground {
    /// `units` gives for each group the indivisible unit of each of its observations.
    pub(super) fn new(groups: &[Group], units: impl Fn(&Group, &[usize]) -> Vec<usize>) -> Self {
        let quantities = catalogue();
        let mut scopes: Vec<Scope> = groups
            .iter()
            .map(|group| {
                let (observations, lines): (Vec<_>, Vec<_>) = group.observations(Target::EnergyJ).into_iter().unzip();
                let units = units(group, &lines);
                scope(&quantities, observations, units, group)
            })
            .filter(|scope| scope.rows() > 0)
            .collect();
        let kept = distinct(&quantities, &scopes);
        let quantities: Vec<Quantity> = kept.iter().filter_map(|q| quantities.get(*q).cloned()).collect();
        for scope in &mut scopes {
            scope.columns = kept.iter().filter_map(|q| scope.columns.get(*q).cloned()).collect();
            scope.expected = kept.iter().map(|q| scope.expected.get(*q).copied().flatten()).collect();
        }
        let neighbours = neighbours(&quantities);
        let bases = telling(&scopes);
        Self { quantities, scopes, bases, neighbours }
    }

    pub(super) fn rows(&self) -> usize {
        self.scopes.iter().map(Scope::rows).sum()
    }

    /// The law of `scope` on other observations, of which nothing is to be learnt.
    pub(super) fn alike(&self, scope: &Scope, observations: Vec<Observation>) -> Scope {
        Scope {
            columns: columns(&self.quantities, &observations),
            ln_bases: ln_bases(&observations),
            weights: vec![1.0; observations.len()],
            expected: scope.expected.clone(),
            units: Vec::new(),
            observations,
        }
    }

    /// A given structure as a candidate: each term is the quantity that no row can tell from it. `None` if a term is
    /// unlike every quantity, or if terms of one phase scale differently.
    pub(super) fn genome(&self, skeleton: &Skeleton) -> Option<Genome> {
        let mut genome = Genome::default();
        for (place, term) in skeleton.terms.iter().enumerate() {
            let own: Vec<Vec<f64>> = self
                .scopes
                .iter()
                .map(|s| {
                    s.observations.iter().map(|o| skeleton.products(&o.case).get(place).map_or(0.0, |v| v / o.value))
                })
                .map(Iterator::collect)
                .collect();
            if own.iter().flatten().all(|v| *v == 0.0) {
                continue;
            }
            let phase = PHASES.iter().position(|g| *g == term.group);
            let alike = |(q, quantity): (usize, &Quantity)| {
                let same_class = PHASES.iter().position(|g| *g == quantity.group) == phase;
                let columns = self.scopes.iter().map(|s| s.columns.get(q));
                let same = || columns.zip(&own).all(|(a, b)| a.is_some_and(|a| proportional(a, b)));
                (same_class && same()).then_some(q)
            };
            let quantity = self.quantities.iter().enumerate().find_map(alike)?;
            let mut bases = Vec::new();
            for (symbol, _) in skeleton.scalings(term) {
                let base = Symbol::SCALABLE.iter().position(|s| *s == symbol)?;
                // A base that never varies scales nothing; one that equals another is that other.
                bases.extend(self.bases.iter().find(|b| self.same_base(**b, base)));
            }
            bases.sort_unstable();
            let scaled = !bases.is_empty();
            if scaled {
                let slot = genome.powers.get_mut(phase?)?;
                if !slot.is_empty() && *slot != bases {
                    return None;
                }
                *slot = bases;
            }
            genome.genes.push(Gene { quantity, scaled });
        }
        Some(genome.canonical(self)).filter(|g| !g.genes.is_empty())
    }

    fn same_base(&self, a: usize, b: usize) -> bool {
        self.scopes.iter().all(|s| match (s.ln_bases.get(a), s.ln_bases.get(b)) {
            (Some(a), Some(b)) => a.iter().zip(b).all(|(x, y)| (x - y).abs() < SAME),
            _ => false,
        })
    }
}

/// Whether two columns are multiples of each other.
fn proportional(a: &[f64], b: &[f64]) -> bool {
    let mut ratio = None;
    a.iter().zip(b).all(|(a, b)| match (*a > 0.0, *b > 0.0) {
        (false, false) => true,
        (true, true) => (a / b / *ratio.get_or_insert(a / b) - 1.0).abs() < SAME,
        _ => false,
    })
}

fn scope(quantities: &[Quantity], observations: Vec<Observation>, units: Vec<usize>, group: &Group) -> Scope {
    let gpu = GpuCard::builtin(&group.gpu_model).filter(|_| group.without_card().is_none());
    let expect = |q: &Quantity| q.prior.zip(gpu.as_ref()).and_then(|(prior, gpu)| prior.priced(gpu).mean);
    Scope {
        columns: columns(quantities, &observations),
        ln_bases: ln_bases(&observations),
        weights: observations
            .iter()
            .map(|o| o.relative_std.map_or(1.0, |s| 1.0 / (1.0 + (s / SIGMA0).powi(2))))
            .collect(),
        expected: quantities.iter().map(expect).collect(),
        observations,
        units,
    }
}

/// Per quantity, its value on every observation over the measured one.
fn columns(quantities: &[Quantity], observations: &[Observation]) -> Vec<Vec<f64>> {
    let whole = Skeleton {
        name: String::new(),
        target: Target::EnergyJ,
        about: String::new(),
        terms: quantities.iter().map(bare_term).collect(),
        exponents: Vec::new(),
    };
    let mut columns = vec![Vec::with_capacity(observations.len()); quantities.len()];
    for o in observations {
        for (column, value) in columns.iter_mut().zip(whole.products(&o.case)) {
            column.push(value / o.value);
        }
    }
    columns
}

fn ln_bases(observations: &[Observation]) -> Vec<Vec<f64>> {
    Symbol::SCALABLE.iter().map(|s| observations.iter().map(|o| o.case.value(*s).ln()).collect()).collect()
}

fn bare_term(q: &Quantity) -> Term {
    Term {
        name: String::new(),
        title: String::new(),
        group: q.group,
        product: q.product.clone(),
        scaling: Default::default(),
        prior: None,
        unit: String::new(),
    }
}

/// Quantities that are finite, positive somewhere, and not a multiple of an earlier one of the same phase.
fn distinct(quantities: &[Quantity], scopes: &[Scope]) -> Vec<usize> {
    let usable = |q: usize| {
        let mut values = scopes.iter().flat_map(|s| s.columns.get(q).into_iter().flatten());
        values.clone().all(|v| v.is_finite()) && values.any(|v| *v > 0.0)
    };
    // Only a quantity that fitted powers may stand on differs from its twin in another group.
    let class = |q: &Quantity| q.is_scalable().then_some(q.group);
    let alike = |a: usize, b: usize| {
        scopes.iter().all(|s| s.columns.get(a).zip(s.columns.get(b)).is_some_and(|(a, b)| proportional(a, b)))
    };
    let mut kept: Vec<usize> = Vec::new();
    for (q, quantity) in quantities.iter().enumerate() {
        let twin = |k: &usize| quantities.get(*k).map(class) == Some(class(quantity)) && alike(*k, q);
        if usable(q) && !kept.iter().any(twin) {
            kept.push(q);
        }
    }
    kept
}

fn neighbours(quantities: &[Quantity]) -> Vec<Vec<usize>> {
    /// Most differences of powers between neighbours.
    const REACH: f64 = 2.0;
    let of = |a: &Quantity| {
        let mut near: Vec<(f64, usize)> = quantities
            .iter()
            .enumerate()
            .map(|(j, b)| (super::catalogue::distance(&a.product, &b.product), j))
            .filter(|(d, j)| *d <= REACH && quantities.get(*j) != Some(a))
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        near.into_iter().map(|(_, j)| j).collect()
    };
    quantities.iter().map(of).collect()
}

/// Bases that vary, each unlike the earlier ones.
fn telling(scopes: &[Scope]) -> Vec<usize> {
    let column = |b: usize| -> Vec<f64> {
        scopes.iter().flat_map(|s| s.ln_bases.get(b).into_iter().flatten().copied()).collect()
    };
    let varies = |b: usize| {
        scopes
            .iter()
            .filter_map(|s| s.ln_bases.get(b))
            .any(|logs| logs.iter().any(|v| logs.first().is_some_and(|f| (v - f).abs() > 1e-9)))
    };
    let mut kept: Vec<usize> = Vec::new();
    for b in 0..Symbol::SCALABLE.len() {
        let same = |k: &usize| column(*k).iter().zip(column(b)).all(|(x, y)| (x - y).abs() < 1e-9);
        if varies(b) && !kept.iter().any(same) {
            kept.push(b);
        }
    }
    kept
}
