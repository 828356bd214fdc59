//! What does a law measured elsewhere say of this platform?
//!
//! A coefficient is an amount of a GPU's resource at that GPU's price, so it is carried over by the ratio of the prices
//! (`law::prior`): joules at the power limit for an energy, seconds at the data-sheet rate for a time. Exponents are carried
//! as they are. The old law's covariance comes along, widened by what platforms differ by beyond their prices: a factor
//! that all terms share (how efficient the engine and the cooling are) and one of each term's own. The new law is then the
//! most probable one given the new rows and this belief, and ten rows are enough to correct what is most wrong. With no
//! rows at all the carried law is all there is (`unmeasured`).

use nalgebra::DMatrix;

use super::Error;
use super::belief::Belief;
use super::group::Group;
use crate::card::GpuCard;
use crate::dataset::Row;
use crate::law::{Law, Model, Skeleton, same_gpu, same_label};

pub(crate) mod unmeasured;

/// Standard deviation of the log factor that all energies of another platform share, prices apart.
const SHARED: f64 = 0.25;
/// The same where a GPU has no card, so that nothing is known of its prices: generations differ by a factor of two or so.
const UNPRICED: f64 = 0.7;
/// The same of one coefficient's own factor.
const OWN: f64 = 0.3;
/// Standard deviation by which an exponent differs between platforms.
const EXPONENT: f64 = 0.1;
/// A coefficient that the old rows did not determine is not believed to better or worse than its own size.
const WIDEST: f64 = 1.0;

/// The belief that `prior` gives for `group`, and the law it comes from in words.
pub(crate) fn belief(prior: &Model, group: &Group, skeleton: &Skeleton) -> Result<(Belief, String), Error> {
    let law = closest(prior, group, skeleton)?;
    let Prices { ratios: prices, shared } = prices(law, &group.gpu_model, skeleton);
    let terms = skeleton.terms.len();
    let card = group.priced(skeleton.clone());
    let mut scale = Vec::with_capacity(terms);
    let mut centre = Vec::with_capacity(skeleton.parameter_count());
    for (j, c) in law.coefficients.iter().enumerate() {
        let price = prices.get(j).copied().unwrap_or(1.0);
        let carded = card.terms.get(j).and_then(|t| t.prior.and_then(|p| p.mean));
        // A term that the old rows did not show is believed to be absent, give or take what could have hidden there.
        let hidden = c.high.map(|h| h * price).or(carded).filter(|h| *h > 0.0).unwrap_or(1.0);
        let present = c.value > 0.0;
        scale.push(if present { c.value * price } else { hidden });
        centre.push(f64::from(u8::from(present)));
    }
    centre.extend(law.exponents.iter().map(|e| e.value));
    let what = format!("the law of {}", law.scope());
    Ok((Belief::carried(scale, centre, &covariance(law, shared), what.clone()), what))
}

/// The law of the same structure that is nearest: of the same model, else a pooled one, else any; among these of the same
/// GPU, then engine, then precision, then the one with most rows.
fn closest<'a>(prior: &'a Model, group: &Group, skeleton: &Skeleton) -> Result<&'a Law, Error> {
    let scope = group.scope();
    let refused = |found: String| Error::NoPrior { scope: scope.clone(), target: skeleton.target, found };
    let same_form = |law: &&Law| {
        let form = |s: &Skeleton| s.terms.iter().map(|t| (t.product.clone(), t.scaling.clone())).collect::<Vec<_>>();
        law.skeleton.target == skeleton.target && form(&law.skeleton) == form(skeleton)
    };
    let carries = |law: &&Law| {
        // Across models a coefficient means something only in the units of the cards.
        let same_model = group.model.as_ref().is_some_and(|m| law.fitted_models.len() == 1 && law.knows(m));
        let carded = group.without_card().is_none() && prior.scenarios.iter().all(|s| !s.descriptors.nominal);
        same_model || carded
    };
    let rank = |law: &&Law| {
        let model = match (&law.model, &group.model) {
            (Some(_), Some(model)) if law.knows(model) => 3,
            (None, _) => 2,
            _ => 1,
        };
        let label = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => same_label(a, b),
            (a, b) => a == b,
        };
        let gpu = same_gpu(&law.gpu_model, &group.gpu_model);
        (model, gpu, label(&law.engine, &group.engine), label(&law.precision, &group.precision), law.rows)
    };
    let mut fitting: Vec<&Law> = prior.laws.iter().filter(same_form).filter(carries).collect();
    fitting.sort_by_key(|law| std::cmp::Reverse(rank(law)));
    fitting.into_iter().next().ok_or_else(|| {
        let known: Vec<String> = prior
            .laws
            .iter()
            .map(|l| format!("{} of {} ({})", l.skeleton.target, l.scope(), l.skeleton.name))
            .collect();
        refused(if known.is_empty() { "no law".to_owned() } else { known.join("; ") })
    })
}

/// What separates two platforms before anything is measured on the second.
struct Prices {
    /// Per term, the price of its resource there over that where the law was measured; 1 where a card is missing, and for
    /// terms that name no resource.
    ratios: Vec<f64>,
    /// Standard deviation of the log factor that all terms share beyond that.
    shared: f64,
}

/// `skeleton` is of the law's structure, and knows the resources that a law of an earlier version does not name.
fn prices(law: &Law, gpu_model: &str, skeleton: &Skeleton) -> Prices {
    let cards = GpuCard::builtin(&law.gpu_model).zip(GpuCard::builtin(gpu_model));
    let known = cards.is_some() || same_gpu(&law.gpu_model, gpu_model);
    let ratio = |term: &crate::law::Term| {
        let ((old, new), prior) = (cards.as_ref()?, term.prior?);
        let price = |gpu| prior.of.price(skeleton.target, gpu);
        Some(price(new) / price(old)).filter(|r| r.is_finite() && *r > 0.0)
    };
    Prices {
        ratios: skeleton.terms.iter().map(|term| ratio(term).unwrap_or(1.0)).collect(),
        shared: if known { SHARED } else { UNPRICED },
    }
}

/// Refuses a prior that may have seen rows which are to be held out, for every figure would be worthless: one with a law of
/// a row's model on its GPU, engine and precision. What either side leaves open is taken to be the same.
pub fn prior_is_elsewhere(prior: &Model, rows: &[Row]) -> Result<(), Error> {
    let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => same_label(a, b),
        _ => true,
    };
    let saw = |row: &Row| {
        let here = |law: &&Law| {
            let gpu = same_gpu(&law.gpu_model, &row.gpu_model);
            gpu && same(&law.engine, &row.engine) && same(&law.precision, &row.precision) && law.knows(&row.model)
        };
        prior.laws.iter().find(here).map(|law| Error::PriorOfThisPlatform { law: law.scope(), line: row.line })
    };
    rows.iter().find_map(saw).map_or(Ok(()), Err)
}

/// Covariance of relative coefficients and exponents: the old law's, and what platforms differ by.
fn covariance(law: &Law, shared: f64) -> DMatrix<f64> {
    let terms = law.coefficients.len();
    let n = terms + law.exponents.len();
    let entry = |i: usize, j: usize| law.covariance.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0.0);
    let value = |i: usize| law.coefficients.get(i).map_or(1.0, |c| c.value);
    let relative = |i: usize, j: usize| match value(i) * value(j) {
        values if values > 0.0 => entry(i, j) / values,
        _ => 0.0,
    };
    // What was held is unknown, not certain.
    let free = |i: usize| relative(i, i) > 0.0;
    let shrink = |i: usize| (WIDEST / relative(i, i).sqrt()).min(1.0);
    DMatrix::from_fn(n, n, |i, j| {
        let old = if free(i) && free(j) { relative(i, j) * shrink(i) * shrink(j) } else { 0.0 };
        let both_terms = i < terms && j < terms;
        let shared = if both_terms && value(i) > 0.0 && value(j) > 0.0 { shared * shared } else { 0.0 };
        let own = match (i == j, i < terms) {
            (false, _) => 0.0,
            (true, true) if !free(i) => WIDEST * WIDEST,
            (true, true) => OWN * OWN,
            (true, false) => {
                let held = law.skeleton.exponents.get(i - terms).map_or(0.0, |e| e.prior_sd);
                EXPONENT * EXPONENT + if free(i) { 0.0 } else { held * held }
            }
        };
        old + shared + own
    })
}

#[cfg(test)]
mod tests;
