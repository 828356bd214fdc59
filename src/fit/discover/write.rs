//! A candidate as a skeleton: data like any other, for files, fits and formulas.

use super::genome::{Genome, PHASES, phase_of};
use super::ground::Ground;
use super::kernel::{HIGH, LOW, POWER_SD};
use crate::law::{ExponentSpec, Skeleton, Symbol, Target, Term, TermGroup};

/// Terms in the order of the phases, as the built-in law lists them.
pub(super) fn skeleton(ground: &Ground, genome: &Genome, name: &str) -> Skeleton {
    let exponents = genome.exponents();
    let exponent_name = |place: usize| format!("a{}", place + 1);
    let mut genes: Vec<_> =
        genome.genes.iter().filter_map(|g| Some((*g, ground.quantities.get(g.quantity)?))).collect();
    genes.sort_by_key(|(gene, quantity)| (order(quantity.group), *gene));
    let terms: Vec<Term> = genes
        .into_iter()
        .enumerate()
        .map(|(place, (gene, quantity))| {
            let phase = phase_of(ground, gene);
            let powers = exponents.iter().enumerate().filter(|(_, (p, _))| Some(*p) == phase);
            let scaling = powers
                .filter_map(|(j, (_, base))| Some((Symbol::SCALABLE.get(*base)?.as_str().to_owned(), exponent_name(j))))
                .collect();
            Term {
                name: format!("k{place}"),
                title: quantity.title.clone(),
                group: quantity.group,
                product: quantity.product.clone(),
                scaling,
                prior: quantity.prior,
                unit: quantity.unit.clone(),
            }
        })
        .collect();
    let spec = |(j, (phase, base)): (usize, &(usize, usize))| {
        let symbol = Symbol::SCALABLE.get(*base).map_or("", |s| s.as_str());
        let phase = PHASES.get(*phase).map_or("", |g| g.as_str());
        ExponentSpec {
            name: exponent_name(j),
            title: format!("power of {symbol} in {phase}"),
            low: LOW,
            high: HIGH,
            prior: 0.0,
            prior_sd: POWER_SD,
        }
    };
    Skeleton {
        name: name.to_owned(),
        target: Target::EnergyJ,
        about: format!("{} terms and {} fitted powers, found by discovery", terms.len(), exponents.len()),
        exponents: exponents.iter().enumerate().map(spec).collect(),
        terms,
    }
}

fn order(group: TermGroup) -> usize {
    match group {
        TermGroup::Static => 0,
        TermGroup::Prefill => 1,
        TermGroup::Decode => 2,
        TermGroup::Communication => 3,
        TermGroup::Overhead => 4,
    }
}
