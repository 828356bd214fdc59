//! What is exported, before it has a language: laws with numbers, cards, and what a reader must know.

use super::super::fitted::Law;
use super::super::model::Scenario;
use super::super::resolve::Descriptors;
use super::super::skeleton::{Skeleton, Term};
use super::super::target::Target;
use super::ExportError;

/// Share of memory that engines hand out where nothing better is known, as in the capacity factor itself.
const MEMORY_UTILISATION: f64 = 0.9;

/// Everything that is exported at once.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// First lines: what it is, where it came from, how far it holds.
    pub(super) preface: Vec<String>,
    pub(super) formulas: Vec<Formula<'a>>,
    pub(super) cards: Cards,
}

/// One law.
#[derive(Debug)]
pub(super) struct Formula<'a> {
    pub(super) skeleton: &'a Skeleton,
    /// The fitted numbers; `None` where the function asks for them.
    pub(super) law: Option<&'a Law>,
}

/// Where the numbers of the model come from.
#[derive(Debug)]
pub(super) enum Cards {
    /// The law holds for this model alone, or the asker named it.
    Fixed(Card),
    /// The caller hands one over; these are known.
    Open(Vec<Card>),
}

/// What a law needs of a model on a GPU.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Card {
    pub(super) model: String,
    pub(super) descriptors: Descriptors,
    /// Memory of one GPU, 0 where it says nothing of the cache.
    pub(super) gpu_memory_bytes: f64,
    pub(super) memory_utilisation: f64,
    /// Measured capacities: degrees and tokens.
    pub(super) kv_capacity_tokens: Vec<(u32, u32, f64)>,
}

impl Card {
    /// Column names and values, as in the table of phases where it has them.
    pub(super) fn columns(&self) -> [(&'static str, f64); 10] {
        let d = &self.descriptors;
        [
            ("n_layers", d.n_layers),
            ("active_params", d.active_params),
            ("weight_bytes", d.weight_bytes),
            ("hidden_size", d.hidden_size),
            ("kv_bytes_per_token", d.kv_bytes_per_token),
            ("num_experts", d.num_experts),
            ("experts_per_token", d.experts_per_token),
            ("routed_share", d.routed_share),
            ("gpu_memory_bytes", self.gpu_memory_bytes),
            ("memory_utilisation", self.memory_utilisation),
        ]
    }

    /// Whether a step's weights depend on the batch.
    pub(super) fn routes(&self) -> bool {
        let d = &self.descriptors;
        d.num_experts > 1.0 && d.experts_per_token > 0.0 && d.experts_per_token < d.num_experts
    }
}

impl From<&Scenario> for Card {
    fn from(scenario: &Scenario) -> Self {
        // Placeholders of an unknown model are no sizes, and say nothing of what fits beside them.
        let memory = scenario.gpu_memory_bytes.filter(|_| !scenario.descriptors.nominal);
        // The first of two rows of the same degrees is the one that the law looks up.
        let mut kv_capacity_tokens: Vec<(u32, u32, f64)> = Vec::new();
        for known in scenario.kv_capacity_tokens.iter().filter(|(_, _, tokens)| tokens.is_finite() && *tokens > 0.0) {
            if !kv_capacity_tokens.iter().any(|(t, p, _)| (*t, *p) == (known.0, known.1)) {
                kv_capacity_tokens.push(*known);
            }
        }
        Self {
            model: scenario.model.clone(),
            descriptors: scenario.descriptors,
            gpu_memory_bytes: memory.unwrap_or(0.0),
            memory_utilisation: scenario.memory_utilisation.unwrap_or(MEMORY_UTILISATION),
            kv_capacity_tokens,
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn of_skeleton(skeleton: &'a Skeleton) -> Self {
        let mut preface = vec![
            format!("The structure `{}`: {}.", line(&skeleton.name), line(&skeleton.about)),
            format!("Written by energylens {}. It has no numbers:", env!("CARGO_PKG_VERSION")),
            format!(
                "its {} coefficients k and {} exponents a are asked for, in the order of the terms below.",
                skeleton.terms.len(),
                skeleton.exponents.len()
            ),
        ];
        preface.extend(arguments());
        Self { preface, formulas: vec![Formula { skeleton, law: None }], cards: Cards::Open(Vec::new()) }
    }

    /// Refuses what no language can write.
    pub(super) fn check(&self) -> Result<(), ExportError> {
        let finite = |what: &str, value: f64| {
            let error = || ExportError::NotFinite { what: what.to_owned(), value };
            value.is_finite().then_some(()).ok_or_else(error)
        };
        for formula in &self.formulas {
            for (name, value) in formula.numbers() {
                finite(name, value)?;
            }
            for factor in formula.skeleton.terms.iter().flat_map(|t| &t.product) {
                finite("a power", factor.power)?;
            }
        }
        let cards = match &self.cards {
            Cards::Fixed(card) => std::slice::from_ref(card),
            Cards::Open(cards) => cards,
        };
        cards.iter().flat_map(Card::columns).try_for_each(|(name, value)| finite(name, value))
    }
}

impl<'a> Formula<'a> {
    pub(super) fn target(&self) -> Target {
        self.skeleton.target
    }

    /// `J` or `s`.
    pub(super) fn unit(&self) -> &'static str {
        self.target().unit()
    }

    /// The terms with the values of their coefficients.
    pub(super) fn terms(&self) -> impl Iterator<Item = (&'a Term, Option<f64>)> + '_ {
        let value = |i: usize| self.law.and_then(|l| l.coefficients.get(i)).map(|c| c.value);
        self.skeleton.terms.iter().enumerate().map(move |(i, term)| (term, value(i)))
    }

    pub(super) fn exponent(&self, index: usize) -> Option<f64> {
        self.law.and_then(|l| l.exponents.get(index)).map(|e| e.value)
    }

    fn numbers(&self) -> impl Iterator<Item = (&str, f64)> {
        self.law.into_iter().flat_map(|law| {
            let coefficients = law.coefficients.iter().map(|c| (c.name.as_str(), c.value));
            coefficients.chain(law.exponents.iter().map(|e| (e.name.as_str(), e.value)))
        })
    }

    /// Which part of a batch the target means; `None` where the caller says so.
    pub(super) fn fixed_part(&self) -> Option<&'static str> {
        match self.target() {
            Target::EnergyJ | Target::DurationS => None,
            Target::MeanTtftS => Some("prefill"),
            Target::MeanTpotS => Some("decode"),
        }
    }
}

/// What a target is, in words.
pub(super) fn meaning(target: Target) -> &'static str {
    match target {
        Target::EnergyJ => "energy of one batch, all GPUs of all replicas",
        Target::DurationS => "duration of one batch",
        Target::MeanTtftS => "mean time to first token",
        Target::MeanTpotS => "mean time per output token after the first",
    }
}

/// What the functions ask for, in words.
pub(super) fn arguments() -> Vec<String> {
    [
        "Arguments are named after columns: tensor_parallel, pipeline_parallel, data_parallel (replicas), batch_size",
        "(sequences in flight over all replicas), input_tokens and output_tokens (per sequence), phase (total, prefill",
        "or decode) and kv_capacity_tokens (what the cache of one replica holds, where known).",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One line of printable text: names and titles come from files. What turns the direction of writing goes as well as what
/// ends a line: it makes code look like other code, so that Rust refuses it even in comments.
pub(super) fn line(text: &str) -> String {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().map(|c| if ends(c) || turns(c) { ' ' } else { c }).collect()
}
