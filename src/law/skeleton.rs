//! A skeleton: the structure of a law before any number is fitted, read from TOML.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::case::{Case, Symbol};
use super::prior::CoefficientPrior;
use super::product;
use super::target::Target;
use crate::card::GpuCard;
use crate::schema::Phase;

/// Largest size of an exponent: physics stays below 3.
const LARGEST_EXPONENT: f64 = 100.0;
/// Largest size of a known power, for the same reason.
const LARGEST_POWER: f64 = 10.0;
/// Most terms, exponents, and factors of one term. The built-in law has eight terms; every further one makes a fit slower
/// by more than its share.
const MOST_PARTS: usize = 40;
/// Smallest standard deviation of a prior; a smaller one is a fixed exponent, and its square is lost in rounding.
const SMALLEST_SPREAD: f64 = 1e-6;

/// What a term stands for when its share of the energy is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TermGroup {
    /// Power that flows whatever is computed.
    Static,
    /// Input processing.
    Prefill,
    /// Token generation.
    Decode,
    /// GPU to GPU.
    Communication,
    /// Launches, host, scheduler.
    Overhead,
}

impl TermGroup {
    /// The spelling in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Communication => "communication",
            Self::Overhead => "overhead",
        }
    }
}

/// A symbol to a fixed power.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factor {
    /// Which quantity.
    pub symbol: Symbol,
    /// Its power.
    pub power: f64,
}

/// One term: coefficient times product, times fitted powers of `t` and `p`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Name of the coefficient.
    pub name: String,
    /// What it stands for, in words.
    pub title: String,
    /// Which part of the energy it belongs to.
    pub group: TermGroup,
    /// Known factors, as a product.
    #[serde(with = "product")]
    pub product: Vec<Factor>,
    /// Fitted powers: symbol (one of [`Symbol::SCALABLE`]) to the name of the exponent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scaling: BTreeMap<String, String>,
    /// What the coefficient should be before anything is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<CoefficientPrior>,
    /// Unit of the coefficient.
    pub unit: String,
}

/// One fitted exponent: its box, and the weak prior that decides where the data is silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExponentSpec {
    /// Name.
    pub name: String,
    /// What it stands for, in words.
    pub title: String,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Prior mean.
    pub prior: f64,
    /// Prior standard deviation.
    pub prior_sd: f64,
}

/// A named list of terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skeleton {
    /// Name.
    pub name: String,
    /// What it predicts.
    pub target: Target,
    /// One line on its idea.
    pub about: String,
    /// Terms.
    #[serde(rename = "term")]
    pub terms: Vec<Term>,
    /// Exponents.
    #[serde(rename = "exponent", default)]
    pub exponents: Vec<ExponentSpec>,
}

/// What is wrong with a skeleton.
#[derive(Debug, thiserror::Error)]
pub enum SkeletonError {
    /// Not TOML, or a key missing or unknown.
    #[error("skeleton is not readable: {0}")]
    Toml(#[from] toml::de::Error),
    /// A reference that leads nowhere, a box that is empty.
    #[error("skeleton `{skeleton}`: {problem}")]
    Invalid {
        /// Its name.
        skeleton: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl Skeleton {
    /// Reads and checks a skeleton file.
    pub fn from_toml(text: &str) -> Result<Self, SkeletonError> {
        let mut skeleton: Self = toml::from_str(text)?;
        // A model file holds texts of one line, and this one may be written in several.
        skeleton.about = skeleton.about.split_whitespace().collect::<Vec<_>>().join(" ");
        skeleton.check()?;
        Ok(skeleton)
    }

    /// The skeleton as a file that [`from_toml`](Self::from_toml) reads.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The skeletons that come with the program.
    pub fn builtin() -> Vec<Self> {
        [include_str!("skeletons/energylens.toml"), include_str!("skeletons/energylens-latency.toml")]
            .into_iter()
            .filter_map(|text| Self::from_toml(text).ok())
            .collect()
    }

    /// The built-in skeleton for `target`: the energylens law, or its sibling for times.
    pub fn default_for(target: Target) -> Self {
        let name = if target == Target::EnergyJ { "energylens" } else { "energylens-latency" };
        let found = Self::builtin().into_iter().find(|s| s.name == name).and_then(|s| s.serving(target));
        // The files are part of the binary and parsed by a test, so the default is never taken.
        found.unwrap_or_else(|| Self {
            name: name.to_owned(),
            target,
            about: String::new(),
            terms: Vec::new(),
            exponents: Vec::new(),
        })
    }

    /// The structure for `target`, if it is one: a structure of one time serves all times.
    pub fn serving(&self, target: Target) -> Option<Self> {
        (self.target.unit() == target.unit()).then(|| Self { target, ..self.clone() })
    }

    /// The same with the priors of its coefficients at the prices of `gpu`.
    pub fn priced(mut self, gpu: &GpuCard) -> Self {
        for term in &mut self.terms {
            term.prior = term.prior.map(|prior| prior.priced(gpu));
        }
        self
    }

    /// Number of fitted numbers: coefficients and exponents.
    pub fn parameter_count(&self) -> usize {
        self.terms.len() + self.exponents.len()
    }

    /// Checks references, boxes and names; everything that a hand-edited file may get wrong.
    pub fn check(&self) -> Result<(), SkeletonError> {
        let invalid = |problem: String| SkeletonError::Invalid { skeleton: self.name.clone(), problem };
        if self.terms.is_empty() {
            return Err(invalid("has no [[term]]".to_owned()));
        }
        let most = |parts: &str, found: usize| match found {
            0..=MOST_PARTS => Ok(()),
            _ => Err(invalid(format!("has {found} {parts}; expected {MOST_PARTS} at most"))),
        };
        most("terms", self.terms.len())?;
        most("exponents", self.exponents.len())?;
        let of_terms = self.terms.iter().flat_map(|t| [&t.name, &t.title, &t.unit]);
        let of_exponents = self.exponents.iter().flat_map(|e| [&e.name, &e.title]);
        if let Some(text) = [&self.name].into_iter().chain(of_terms).chain(of_exponents).find(|t| t.contains('\n')) {
            return Err(invalid(format!("`{}` has a line break; write it in one line", text.escape_default())));
        }
        for (i, term) in self.terms.iter().enumerate() {
            if self.terms[..i].iter().any(|other| other.name == term.name) {
                return Err(invalid(format!("two terms are called `{}`", term.name)));
            }
            most(&format!("factors in term `{}`", term.name), term.product.len())?;
            if let Some(factor) = term.product.iter().find(|f| f.power.is_nan() || f.power.abs() > LARGEST_POWER) {
                return Err(invalid(format!(
                    "term `{}` has {}^{}; expected powers from -{LARGEST_POWER} to {LARGEST_POWER}",
                    term.name,
                    factor.symbol.as_str(),
                    factor.power
                )));
            }
            if term.prior.is_some_and(|p| !p.is_valid(self.target)) {
                let needed = match self.target {
                    Target::EnergyJ => "needs an amount above 0",
                    _ => "has an amount; expected its resource alone in a law of times",
                };
                return Err(invalid(format!("the prior of term `{}` {needed}", term.name)));
            }
            for (symbol, exponent) in &term.scaling {
                if !Symbol::SCALABLE.iter().any(|s| s.as_str() == symbol) {
                    let known: Vec<_> = Symbol::SCALABLE.iter().map(|s| s.as_str()).collect();
                    let known = known.join(", ");
                    return Err(invalid(format!("term `{}` scales `{symbol}`; expected one of {known}", term.name)));
                }
                if !self.exponents.iter().any(|e| e.name == *exponent) {
                    return Err(invalid(format!(
                        "term `{}` uses exponent `{exponent}`, which is not listed",
                        term.name
                    )));
                }
            }
        }
        for (i, e) in self.exponents.iter().enumerate() {
            if self.exponents[..i].iter().any(|other| other.name == e.name) {
                return Err(invalid(format!("two exponents are called `{}`", e.name)));
            }
            let finite = [e.low, e.high, e.prior, e.prior_sd].iter().all(|v| v.is_finite());
            // Beyond that every power is zero or infinite, and so is the width of the range to search.
            let wide = e.low < -LARGEST_EXPONENT || e.high > LARGEST_EXPONENT || e.prior_sd < SMALLEST_SPREAD;
            if !finite || wide || e.low >= e.high || e.prior < e.low || e.prior > e.high {
                return Err(invalid(format!(
                    "exponent `{}` needs low < high within -{LARGEST_EXPONENT} to {LARGEST_EXPONENT}, a prior between them and prior_sd of at least {SMALLEST_SPREAD}; found low {}, high {}, prior {}, prior_sd {}",
                    e.name, e.low, e.high, e.prior, e.prior_sd
                )));
            }
        }
        Ok(())
    }

    /// Index of the exponent of `symbol` in `term`, if the term scales with it.
    pub fn exponent_index(&self, term: &Term, symbol: Symbol) -> Option<usize> {
        let name = term.scaling.get(symbol.as_str())?;
        self.exponents.iter().position(|e| e.name == *name)
    }

    /// The known part of every term for `case`: products without coefficients and fitted powers, length
    /// `terms.len()`. What a phase or a target covers is a difference of whole batches:
    /// prefill is the batch with one output token, decode is the rest, and a time per output token is a decode's
    /// share of one step. Energies add up over replicas; times do not.
    pub fn products(&self, case: &Case) -> Vec<f64> {
        let at = |m: f64| -> Vec<f64> {
            let case = case.with_output(m);
            self.terms.iter().map(|term| term.product_value(&case)).collect()
        };
        let m = case.output_tokens;
        let decode =
            || -> Vec<f64> { at(m).into_iter().zip(at(1.0)).map(|(all, first)| (all - first).max(0.0)).collect() };
        let mut products = match (self.target, case.phase) {
            (Target::MeanTtftS, _) => at(1.0),
            (Target::MeanTpotS, _) => {
                let steps = (m - 1.0).max(1.0);
                decode().into_iter().map(|v| v / steps).collect()
            }
            (_, Phase::Total) => at(m),
            (_, Phase::Prefill) => at(1.0),
            (_, Phase::Decode) => decode(),
        };
        if self.target == Target::EnergyJ {
            products.iter_mut().for_each(|v| *v *= case.data_parallel);
        }
        products
    }

    /// What each term contributes for `case`, given the fitted numbers; the prediction is their sum.
    pub fn contributions(&self, coefficients: &[f64], exponents: &[f64], case: &Case) -> Vec<f64> {
        self.products(case)
            .into_iter()
            .zip(&self.terms)
            .zip(coefficients)
            .map(|((product, term), k)| k * product * self.scale(term, exponents, case))
            .collect()
    }

    /// The fitted powers of one term: each symbol that it scales with, and the index of the exponent.
    pub fn scalings<'a>(&'a self, term: &'a Term) -> impl Iterator<Item = (Symbol, usize)> + 'a {
        Symbol::SCALABLE.iter().filter_map(|s| Some((*s, self.exponent_index(term, *s)?)))
    }

    /// The value of the fitted powers of one term.
    pub fn scale(&self, term: &Term, exponents: &[f64], case: &Case) -> f64 {
        self.scalings(term).filter_map(|(symbol, j)| Some(case.value(symbol).powf(*exponents.get(j)?))).product()
    }
}

impl Term {
    /// The known factors as skeleton files write them: `L*h*B*S^2`.
    pub fn product_text(&self) -> String {
        product::print(&self.product)
    }

    /// The product of the known factors.
    fn product_value(&self, case: &Case) -> f64 {
        self.product
            .iter()
            .map(|f| {
                let v = case.value(f.symbol);
                if f.power == 1.0 { v } else { v.powf(f.power) }
            })
            .product()
    }
}

#[cfg(test)]
mod tests;
