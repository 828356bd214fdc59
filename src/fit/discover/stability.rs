//! Does one structure survive across architectures, hardware and resampling?
//!
//! Each part of the rows gets a search of its own that knows nothing of the others, and so does each resampling of the
//! workloads. A term *survives* where the chosen structure has it; terms that stand for the same thing in another shape
//! (weights read with or without waves) count as one *role*. And because a structure that was not chosen may fit as well,
//! the structure found in all rows is judged in every part on that part's own folds, beside the part's own structure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::parts::{PartKind, Pieces, divide, resample};
use super::{DiscoverOptions, Discovery, FrontEntry, ground, judge_skeleton, search};
use crate::dataset::Dataset;
use crate::fit::{Error, FitOptions, fit_model};
use crate::law::{Skeleton, SurvivalPart, SurvivalTable, SurvivalTerm, Target, Term};

/// One part of the rows and what was found in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// Kind.
    pub kind: PartKind,
    /// Name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// The structure chosen there.
    pub chosen: FrontEntry,
    /// Held-out error, on the same folds, of the structure chosen for all rows.
    pub common_mape: Option<f64>,
    /// The same of the energylens law.
    pub reference_mape: Option<f64>,
    /// Terms of `chosen`, with numbers fitted to the part.
    pub terms: Vec<PartTerm>,
}

/// A term in one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartTerm {
    /// What it stands for.
    pub role: String,
    /// Its product.
    pub product: String,
    /// Coefficient, smallest among the part's laws.
    pub low: f64,
    /// Coefficient, largest among the part's laws.
    pub high: f64,
    /// Unit of the coefficient.
    pub unit: String,
    /// Mean share of the energy of a row.
    pub share: f64,
}

/// How often a role was chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survival {
    /// What it stands for.
    pub role: String,
    /// Shapes that it was chosen in: product, and how often.
    pub products: Vec<(String, usize)>,
    /// Share of its energy in each part, in the order of [`Stability::parts`]; `None` where it was not chosen.
    pub shares: Vec<Option<f64>>,
    /// Share of the parts (resamples apart) that chose it.
    pub in_parts: f64,
    /// Share of the resamples that chose it; `None` without resamples.
    pub in_resamples: Option<f64>,
    /// Range of the coefficient of its commonest shape over parts and resamples.
    pub coefficients: (f64, f64),
    /// Unit of that coefficient.
    pub unit: String,
}

/// What survives where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stability {
    /// Every part, all rows first, resamples last.
    pub parts: Vec<Part>,
    /// Every role, the most stable first.
    pub roles: Vec<Survival>,
    /// Parts too small to be searched: name and rows.
    pub too_small: Vec<(String, usize)>,
    /// Whether the search was ended early, so that parts or resamples are missing.
    pub cut: bool,
}

impl Stability {
    /// What of it goes into a model file.
    pub fn table(&self) -> SurvivalTable {
        let shown: Vec<(usize, &Part)> =
            self.parts.iter().enumerate().filter(|(_, p)| p.kind != PartKind::Resample).collect();
        let part = |(_, p): &(usize, &Part)| SurvivalPart {
            name: p.name.clone(),
            rows: p.rows,
            parameters: p.chosen.parameters,
            own_mape: p.chosen.held_out_mape,
            common_mape: p.common_mape,
            reference_mape: p.reference_mape,
        };
        let term = |s: &Survival| SurvivalTerm {
            role: s.role.clone(),
            product: s.products.first().map(|(p, _)| p.clone()).unwrap_or_default(),
            shares: shown.iter().map(|(place, _)| s.shares.get(*place).copied().flatten()).collect(),
            in_resamples: s.in_resamples,
            low: s.coefficients.0,
            high: s.coefficients.1,
            unit: s.unit.clone(),
        };
        SurvivalTable {
            parts: shown.iter().map(part).collect(),
            terms: self.roles.iter().map(term).collect(),
            resamples: self.parts.len() - shown.len(),
            cut: self.cut,
        }
    }
}

/// Searches every part of `dataset`, and `resamples` resamplings of all of it. `whole` is what was found in all rows.
pub fn stability(
    dataset: &Dataset,
    whole: &Discovery,
    resamples: usize,
    options: &DiscoverOptions<'_>,
    progress: &dyn Fn(usize, usize),
) -> Result<Stability, Error> {
    let common = whole.best().map(|b| b.skeleton.clone());
    let (divided, too_small) = divide(dataset);
    let drawn =
        (0..resamples).map(|i| (PartKind::Resample, format!("resample {}", i + 1), resample(dataset, options.seed, i)));
    let pieces: Pieces = divided.into_iter().chain(drawn).collect();
    let total = pieces.len();
    let mut parts = Vec::new();
    if let Some(best) = whole.best() {
        let reference_mape = whole.reference.as_ref().map(|r| r.held_out_mape);
        parts.push(Part {
            kind: PartKind::All,
            name: "all rows".to_owned(),
            rows: whole.rows,
            common_mape: Some(best.held_out_mape),
            reference_mape,
            terms: numbers(dataset, &best.skeleton, options),
            chosen: best.clone(),
        });
    }
    let mut cut = false;
    for (done, (kind, name, rows)) in pieces.into_iter().enumerate() {
        if (options.stop)() {
            cut = true;
            break;
        }
        let data = Dataset { rows, ..Dataset::default() };
        let Ok(ground) = ground(&data, options) else { continue };
        let found = search(&ground, options);
        let judge = |skeleton: &Skeleton| judge_skeleton(&ground, skeleton, options.seed).map(|e| e.held_out_mape);
        if let Some(chosen) = found.best().cloned() {
            parts.push(Part {
                kind,
                name,
                rows: found.rows,
                common_mape: common.as_ref().and_then(judge),
                reference_mape: found.reference.as_ref().map(|r| r.held_out_mape),
                terms: numbers(&data, &chosen.skeleton, options),
                chosen,
            });
        }
        progress(done + 1, total);
    }
    Ok(Stability { roles: roles(&parts), parts, too_small, cut })
}

/// The numbers of a structure in a part, by the full fit.
fn numbers(dataset: &Dataset, skeleton: &Skeleton, options: &DiscoverOptions<'_>) -> Vec<PartTerm> {
    let fit = FitOptions {
        pool: options.pool,
        seed: options.seed,
        skeleton: Some(skeleton.clone()),
        targets: vec![Target::EnergyJ],
        ..FitOptions::default()
    };
    let Ok(fitted) = fit_model(dataset, &fit) else { return Vec::new() };
    let mut shares = vec![(0.0, 0usize); skeleton.terms.len()];
    for row in dataset.rows.iter().filter(|r| r.energy_j.is_some()) {
        let law = fitted.model.laws.iter().find(|l| {
            l.model.as_ref().is_none_or(|m| *m == row.model)
                && (&l.gpu_model, &l.engine, &l.precision) == (&row.gpu_model, &row.engine, &row.precision)
        });
        let case = fitted.model.scenarios.iter().find(|s| s.model == row.model).and_then(|s| s.case(row).ok());
        let (Some(law), Some(case)) = (law, case) else { continue };
        let parts = law.contributions(&case);
        let sum: f64 = parts.iter().sum();
        for (slot, part) in shares.iter_mut().zip(parts).filter(|_| sum > 0.0) {
            *slot = (slot.0 + part / sum, slot.1 + 1);
        }
    }
    let of = |(place, term): (usize, &Term)| {
        let values = fitted.model.laws.iter().filter_map(|l| l.coefficients.get(place)).map(|c| c.value);
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        let share = shares.get(place).map_or(0.0, |(sum, rows)| sum / (*rows).max(1) as f64);
        PartTerm { role: term.title.clone(), product: term.product_text(), low, high, unit: term.unit.clone(), share }
    };
    skeleton.terms.iter().enumerate().map(of).collect()
}

fn roles(parts: &[Part]) -> Vec<Survival> {
    let names: BTreeSet<&str> = parts.iter().flat_map(|p| &p.terms).map(|t| t.role.as_str()).collect();
    let share_of = |kind: fn(PartKind) -> bool, role: &str| {
        let own: Vec<&Part> = parts.iter().filter(|p| kind(p.kind)).collect();
        let with = own.iter().filter(|p| p.terms.iter().any(|t| t.role == role)).count();
        (!own.is_empty()).then(|| with as f64 / own.len() as f64)
    };
    let survival = |role: &str| {
        let terms = || parts.iter().flat_map(|p| &p.terms).filter(|t| t.role == role);
        let mut products: BTreeMap<&str, usize> = BTreeMap::new();
        terms().for_each(|t| *products.entry(&t.product).or_default() += 1);
        let mut products: Vec<(String, usize)> = products.into_iter().map(|(p, n)| (p.to_owned(), n)).collect();
        products.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let commonest = products.first().map(|(p, _)| p.clone()).unwrap_or_default();
        let same = || terms().filter(|t| t.product == commonest);
        let share = |p: &Part| {
            let own: Vec<f64> = p.terms.iter().filter(|t| t.role == role).map(|t| t.share).collect();
            (!own.is_empty()).then(|| own.iter().sum())
        };
        Survival {
            role: role.to_owned(),
            shares: parts.iter().map(share).collect(),
            in_parts: share_of(|k| k != PartKind::Resample, role).unwrap_or(0.0),
            in_resamples: share_of(|k| k == PartKind::Resample, role),
            coefficients: same().fold((f64::INFINITY, 0.0_f64), |(l, h), t| (l.min(t.low), h.max(t.high))),
            unit: same().next().map(|t| t.unit.clone()).unwrap_or_default(),
            products,
        }
    };
    let mut found: Vec<Survival> = names.into_iter().map(survival).collect();
    let rank = |s: &Survival| s.in_parts + s.in_resamples.unwrap_or(0.0);
    found.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then(a.role.cmp(&b.role)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_in_two_shapes_is_one_role() {
        let term = |product: &str, low: f64| PartTerm {
            role: "weights read in decode".to_owned(),
            product: product.to_owned(),
            low,
            high: 2.0 * low,
            unit: "J".to_owned(),
            share: 0.25,
        };
        let part = |kind, terms: Vec<PartTerm>| Part {
            kind,
            name: String::new(),
            rows: 1,
            chosen: FrontEntry {
                terms: 1,
                parameters: 1,
                complexity: 1,
                held_out_rms_log: 0.0,
                held_out_mape: 0.0,
                skeleton: Skeleton::default_for(Target::EnergyJ),
            },
            common_mape: None,
            reference_mape: None,
            terms,
        };
        let parts = [
            part(PartKind::All, vec![term("W*m", 1.0)]),
            part(PartKind::Hardware, vec![term("W*m*w", 5.0), term("W*m", 2.0)]),
            part(PartKind::Resample, vec![]),
        ];
        let roles = roles(&parts);
        assert_eq!(roles.len(), 1);
        assert_eq!((roles[0].in_parts, roles[0].in_resamples), (1.0, Some(0.0)));
        assert_eq!(roles[0].products, [("W*m".to_owned(), 2), ("W*m*w".to_owned(), 1)]);
        assert_eq!(roles[0].shares, [Some(0.25), Some(0.5), None]);
        assert_eq!(roles[0].coefficients, (1.0, 4.0));
        // In the model file stand the parts without the resamples, and survive it.
        let table = Stability { roles, parts: parts.to_vec(), too_small: Vec::new(), cut: false }.table();
        assert_eq!((table.parts.len(), table.resamples), (2, 1));
        assert_eq!(table.terms[0].shares, [Some(0.25), Some(0.5)]);
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<SurvivalTable>(&json).unwrap(), table);
    }
}
