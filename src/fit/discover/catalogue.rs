//! What a term may be: the grammar of energies.
//!
//! Energy is spent on resources: arithmetic (FLOP), memory traffic (bytes), traffic between GPUs (link bytes) and waiting
//! (seconds). So a term is an amount of one resource: what is done in one pass, times the passes, times what a deployment
//! makes of it. Every product below has one of those units behind it; none mixes two.
//!
//! ```text
//! flop       N·B per token; L·h·B·context per token                           x  prefill or decode tokens
//! byte       W·r per batch, W·c per step; K·B·context per step; L·h·B activations per token  x  steps, waves, micro-batches
//! link byte  L·h·B per token  x  (t-1) or (t-1)/t;   h·B per token  x  (p-1)  x  tokens
//! second     1, L^0.5, L^0.7 or L per step  x  1, t, p or t·p GPUs            x  steps, waves, micro-batches
//! ```
//!
//! Behind them stand monomials with small rational powers, for what nobody thought of. Their powers are chosen from the
//! data as much as a coefficient is, so each counts as two parameters where skeletons of one size are compared.

use super::mechanism::Mechanism;
use crate::law::{CoefficientPrior, Factor, Resource, TermGroup, parse_product};

/// A term without its coefficient.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    pub(super) title: String,
    pub(super) group: TermGroup,
    pub(super) product: Vec<Factor>,
    pub(super) text: String,
    pub(super) unit: String,
    pub(super) prior: Option<CoefficientPrior>,
    /// What it may be the term of in a complete law.
    pub(super) mechanisms: &'static [Mechanism],
    /// What it adds to the complexity of a skeleton.
    pub(super) cost: usize,
}

impl Quantity {
    /// Whether the fitted powers of its phase may stand on it.
    pub(super) fn is_scalable(&self) -> bool {
        matches!(self.group, TermGroup::Prefill | TermGroup::Decode)
    }
}

/// One family: title, what it may stand for, group, resource and its amount, what one pass does, the unit of that, and what may multiply it.
struct Family {
    title: &'static str,
    mechanisms: &'static [Mechanism],
    group: TermGroup,
    amount: f64,
    of: Resource,
    base: &'static str,
    unit: &'static str,
    times: &'static [&'static str],
}

/// Amounts are arithmetic of the architecture at round efficiencies: see the built-in law's skeleton file.
const FAMILIES: &[Family] = &[
    Family {
        title: "prefill arithmetic",
        mechanisms: &[Mechanism::PrefillArithmetic],
        group: TermGroup::Prefill,
        amount: 3.3,
        of: Resource::Flop,
        base: "N*B*S",
        unit: "J per active parameter and input token",
        times: &[""],
    },
    Family {
        title: "prefill attention",
        mechanisms: &[Mechanism::PrefillAttention],
        group: TermGroup::Prefill,
        amount: 3.3,
        of: Resource::Flop,
        base: "L*h*B*S^2",
        unit: "J per layer, hidden unit and input token squared",
        times: &[""],
    },
    Family {
        title: "decode arithmetic",
        mechanisms: &[Mechanism::DecodeArithmetic],
        group: TermGroup::Decode,
        amount: 3.3,
        of: Resource::Flop,
        base: "N*B*m",
        unit: "J per active parameter and output token",
        times: &[""],
    },
    Family {
        title: "weights read",
        mechanisms: &[Mechanism::WeightsRead],
        group: TermGroup::Decode,
        amount: 0.75,
        of: Resource::Byte,
        base: "W*r",
        unit: "J per weight byte read",
        times: &["*w*u", "*w", "", "*u"],
    },
    Family {
        title: "weights read in decode",
        mechanisms: &[Mechanism::WeightsRead],
        group: TermGroup::Decode,
        amount: 0.75,
        of: Resource::Byte,
        base: "W*m",
        unit: "J per weight byte read",
        times: &["*c*w*u", "*c*w", "*c", "*w*u", "*w", "", "*c*u"],
    },
    Family {
        title: "KV cache read in decode",
        mechanisms: &[Mechanism::CacheRead],
        group: TermGroup::Decode,
        amount: 0.75,
        of: Resource::Byte,
        base: "K*B*m",
        unit: "J per KV byte read",
        times: &["*ctx", "*S", "*seq"],
    },
    Family {
        title: "decode attention",
        mechanisms: &[Mechanism::CacheRead],
        group: TermGroup::Decode,
        amount: 3.3,
        of: Resource::Flop,
        base: "L*h*B*m",
        unit: "J per layer, hidden unit and token of context",
        times: &["*ctx", "*S", "*seq"],
    },
    Family {
        title: "weights read in prefill",
        mechanisms: &[],
        group: TermGroup::Prefill,
        amount: 0.75,
        of: Resource::Byte,
        base: "W",
        unit: "J per weight byte read",
        times: &["*w", "", "*w*u"],
    },
    Family {
        title: "KV cache written in prefill",
        mechanisms: &[],
        group: TermGroup::Prefill,
        amount: 0.75,
        of: Resource::Byte,
        base: "K*B*S",
        unit: "J per KV byte written",
        times: &[""],
    },
    Family {
        title: "activations in prefill",
        mechanisms: &[],
        group: TermGroup::Prefill,
        amount: 30.0,
        of: Resource::Byte,
        base: "L*h*B*S",
        unit: "J per layer, hidden unit and input token",
        times: &[""],
    },
    Family {
        title: "activations and cache writes in decode",
        mechanisms: &[],
        group: TermGroup::Decode,
        amount: 0.75,
        of: Resource::Byte,
        base: "K*B*m",
        unit: "J per KV byte written",
        times: &[""],
    },
    Family {
        title: "all-reduce of tensor parallelism",
        mechanisms: &[Mechanism::Communication],
        group: TermGroup::Communication,
        amount: 8.0,
        of: Resource::LinkByte,
        base: "L*h*B",
        unit: "J per layer, hidden unit, token and link",
        times: &["*seq*t1", "*S*t1", "*m*t1", "*seq*t1*t^-1", "*S*t1*t^-1", "*m*t1*t^-1"],
    },
    Family {
        title: "activations sent down the pipeline",
        mechanisms: &[Mechanism::Communication],
        group: TermGroup::Communication,
        amount: 2.0,
        of: Resource::LinkByte,
        base: "h*B",
        unit: "J per hidden unit, token and link",
        times: &["*seq*p1", "*S*p1", "*m*p1"],
    },
    Family {
        title: "latency of the all-reduce",
        mechanisms: &[Mechanism::Communication],
        group: TermGroup::Communication,
        amount: 1e-5,
        of: Resource::Second,
        base: "L*m*w",
        unit: "J per layer and decode step",
        times: &["*t1", "*t1*t^-1", "*u*t1"],
    },
    Family {
        title: "latency of the pipeline",
        mechanisms: &[Mechanism::Communication],
        group: TermGroup::Communication,
        amount: 5e-5,
        of: Resource::Second,
        base: "m*w",
        unit: "J per decode step and link",
        times: &["*p1", "*p1*u", "*t*p1"],
    },
    Family {
        title: "static power of every GPU",
        mechanisms: &[Mechanism::Static],
        group: TermGroup::Static,
        amount: 1.5e-4,
        of: Resource::Second,
        base: "L^0.7*m",
        unit: "J per layer^0.7, GPU and decode step",
        times: &["*t*p*w", "*t*w", "*p*w", "*t*p", "*t", "*p"],
    },
    Family {
        title: "static power of every GPU",
        mechanisms: &[Mechanism::Static],
        group: TermGroup::Static,
        amount: 5e-5,
        of: Resource::Second,
        base: "L*m",
        unit: "J per layer, GPU and decode step",
        times: &["*t*p*w", "*t*w", "*p*w", "*t*p", "*t", "*p"],
    },
    Family {
        title: "static power of every GPU",
        mechanisms: &[Mechanism::Static],
        group: TermGroup::Static,
        amount: 2e-3,
        of: Resource::Second,
        base: "m",
        unit: "J per GPU and decode step",
        times: &["*t*p*w", "*t*w", "*p*w", "*t*p", "*t", "*p"],
    },
    Family {
        title: "launch and host overhead",
        mechanisms: &[Mechanism::Overhead],
        group: TermGroup::Overhead,
        amount: 5e-5,
        of: Resource::Second,
        base: "L*m",
        unit: "J per layer and decode step",
        times: &["*w", "", "*w*u", "*w*i"],
    },
    Family {
        title: "launch and host overhead",
        mechanisms: &[Mechanism::Overhead],
        group: TermGroup::Overhead,
        amount: 2e-3,
        of: Resource::Second,
        base: "m",
        unit: "J per decode step",
        times: &["*w", "", "*w*u", "*w*i"],
    },
    Family {
        title: "host work per sequence",
        mechanisms: &[Mechanism::Overhead],
        group: TermGroup::Overhead,
        amount: 2e-5,
        of: Resource::Second,
        base: "B",
        unit: "J per sequence and token",
        times: &["*m", "*seq", "*S", "", "*t*m"],
    },
    Family {
        title: "fixed cost of a batch",
        mechanisms: &[Mechanism::Overhead],
        group: TermGroup::Overhead,
        amount: 1e-2,
        of: Resource::Second,
        base: "w",
        unit: "J per batch and GPU",
        times: &["", "*t", "*p", "*t*p", "*L^0.7", "*L^0.7*t*p"],
    },
];

/// Every quantity, the physical ones first: of two that no row can tell apart, the first is kept.
pub(super) fn catalogue() -> Vec<Quantity> {
    let mut found: Vec<Quantity> = Vec::new();
    for family in FAMILIES {
        for times in family.times {
            let prior = CoefficientPrior { amount: family.amount, of: family.of, mean: None };
            add(
                &mut found,
                Quantity {
                    title: family.title.to_owned(),
                    group: family.group,
                    product: Vec::new(),
                    text: format!("{}{times}", family.base),
                    unit: family.unit.to_owned(),
                    prior: Some(prior),
                    mechanisms: family.mechanisms,
                    cost: 1,
                },
            );
        }
    }
    for (text, group) in monomials() {
        add(
            &mut found,
            Quantity {
                title: format!("{} of no known cause", group.as_str()),
                group,
                product: Vec::new(),
                unit: format!("J per {}", text.replace('*', " ")),
                text,
                prior: None,
                mechanisms: Mechanism::of_unknown_cause(group),
                cost: 2,
            },
        );
    }
    found
}

/// Adds `quantity` with the product of its text, unless its like is there.
fn add(found: &mut Vec<Quantity>, quantity: Quantity) {
    // The table above is part of the program and counted by a test.
    let Ok(product) = parse_product(&quantity.text) else { return };
    let same = |q: &Quantity| q.group == quantity.group && powers(&q.product) == powers(&product);
    if !found.iter().any(same) {
        found.push(Quantity { product, ..quantity });
    }
}

/// Products of powers that physics did not ask for.
fn monomials() -> Vec<(String, TermGroup)> {
    let mut found = Vec::new();
    let join = |parts: &[&str]| parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("*");
    for card in ["N", "L*h", "K", "W"] {
        for batch in ["B^0.5", "B^0.75", "B", "B^1.25"] {
            for input in ["S^0.5", "S^0.75", "S", "S^1.25", "S^1.5", "S^2"] {
                found.push((join(&[card, batch, input]), TermGroup::Prefill));
            }
        }
        for batch in ["", "B^0.5", "B^0.75", "B"] {
            for context in ["", "ctx^0.5", "ctx"] {
                for waves in ["", "w"] {
                    found.push((join(&[card, batch, context, "m", waves]), TermGroup::Decode));
                }
            }
        }
    }
    for card in ["", "L"] {
        for batch in ["B^0.5", "B"] {
            for gpus in ["t", "p", "t*p", "t1"] {
                for steps in ["m", "m*w"] {
                    found.push((join(&[card, batch, gpus, steps]), TermGroup::Static));
                }
            }
        }
    }
    found
}

/// Powers by symbol, symbols that cancel left out: two products of the same powers are the same product.
fn powers(product: &[Factor]) -> std::collections::BTreeMap<&'static str, i64> {
    let mut powers = std::collections::BTreeMap::new();
    for factor in product {
        // Hundredths: all powers of the grammar are whole numbers of them.
        *powers.entry(factor.symbol.as_str()).or_insert(0) += (factor.power * 100.0).round() as i64;
    }
    powers.retain(|_, power| *power != 0);
    powers
}

/// How far two products are apart: the sum of differences of their powers.
pub(super) fn distance(a: &[Factor], b: &[Factor]) -> f64 {
    let (a, b) = (powers(a), powers(b));
    let symbols: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let of = |powers: &std::collections::BTreeMap<&'static str, i64>, s: &str| powers.get(s).copied().unwrap_or(0);
    symbols.iter().map(|s| (of(&a, s) - of(&b, s)).abs() as f64 / 100.0).sum()
}

#[cfg(test)]
mod tests;
