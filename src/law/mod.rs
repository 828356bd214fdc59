//! What is the closed form?
//!
//! Start at [`Skeleton`] (a named list of terms, read from a file: data, not code) and [`Law`] (a skeleton with fitted
//! numbers); a [`Model`] is the file that carries laws, the cards they need, and how far to trust them.
//!
//! A term is a product of symbols ([`Symbol`]) times one coefficient >= 0, optionally scaled by powers of `t` and `p`
//! whose exponents are fitted too. Given the exponents, a law is linear in its coefficients; `fit` lives on that.
//!
//! Limits: the energylens law is steady-state. It knows nothing of clocks, thermal drift, or a co-tenant on the GPU,
//! and outside the measured range of a symbol it extrapolates, which [`Prediction::outside`] says.

mod case;
mod check;
pub mod export;
mod fitted;
mod formula;
mod matching;
mod memory;
mod model;
mod one_line;
mod prior;
mod product;
mod resolve;
mod skeleton;
mod survival;
mod target;
mod verdict;

pub use case::{Case, Symbol};
pub(crate) use fitted::quantile;
pub use fitted::{Coefficient, Domain, Exponent, HeldOut, Intervals, Law, Prediction, RowKind, Scatter};
pub use formula::{formula_latex, formula_line, formula_text, legend};
pub(crate) use matching::{same_gpu, same_label, same_model};
pub use model::{Error, MODEL_FORMAT, Model, Pool, Scenario, Training};
pub use prior::{CoefficientPrior, Resource};
pub(crate) use product::parse as parse_product;
pub use resolve::{Descriptors, ResolveError, memory_kv_capacity};
pub use skeleton::{ExponentSpec, Factor, Skeleton, SkeletonError, Term, TermGroup};
pub use survival::{SurvivalPart, SurvivalTable, SurvivalTerm};
pub use target::Target;
pub use verdict::Verdict;
