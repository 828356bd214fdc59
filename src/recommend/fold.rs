//! A law folded down to what varies between the candidates of one pair of degrees.
//!
//! With the model, `t`, `p`, `S` and `m` fixed, only the batch moves a skeleton's symbols: `B` itself, the expert coverage
//! `c` with the reads `r` made of it, the waves `w`, and the pipeline's `u`, `i` and `b`, which stand still too once the
//! pipeline is full. Everything else is folded into one constant per term, so that a candidate costs a few
//! multiplications. `Law::predict` remains the reference; a test holds the two together.

use super::powers::{PowerSum, Range};
use crate::law::{Case, Law, Symbol, Target};

/// What still moves with the batch.
const MOVING: [Symbol; 7] = [
    Symbol::Batch,
    Symbol::Coverage,
    Symbol::Reads,
    Symbol::Waves,
    Symbol::MicroBatches,
    Symbol::StagesPerMicroBatch,
    Symbol::Bubble,
];

/// How many of them move while the pipeline is full.
const MOVING_FULL: usize = 4;

/// One term: a constant times the moving symbols to some powers, times the pipeline's to the fitted ones.
#[derive(Debug, Clone, Copy)]
struct Term {
    constant: f64,
    /// The constant with what a full pipeline makes of it.
    constant_full: f64,
    powers: [f64; MOVING.len()],
    /// Fitted powers of `u`, `i` and `b`.
    scaling: [f64; MOVING.len() - MOVING_FULL],
}

/// The moving symbols' values at one batch.
#[derive(Debug, Clone, Copy)]
struct Moving {
    values: [f64; MOVING.len()],
    is_full: bool,
}

/// What each moving symbol is proportional to the batch by; where the batch is queued, so are the waves.
#[derive(Debug, Clone, Copy)]
struct Powers {
    values: [f64; MOVING.len()],
    is_queued: bool,
}

/// All terms at one number of output tokens.
#[derive(Debug)]
struct Batch {
    terms: Vec<Term>,
    output_tokens: f64,
}

/// One law at fixed degrees and lengths.
#[derive(Debug)]
pub(super) struct Folded {
    /// The whole batch, or its first token where the target is the time to it.
    all: Batch,
    /// The batch stopped at its first token, and the decode steps that share the rest: for times per output token.
    first: Option<(Batch, f64)>,
    /// Of the whole batch: what the fitted powers look at, whatever part of it is asked.
    output_tokens: f64,
    kv_capacity_tokens: Option<f64>,
    per_replica: bool,
    case: Case,
}

impl Folded {
    /// `case` carries the degrees, lengths, card and capacity; its batch is not looked at.
    pub(super) fn new(law: &Law, case: &Case) -> Self {
        let target = law.skeleton.target;
        let m = case.output_tokens;
        let at = |output: f64| Batch::new(law, &case.with_output(output));
        Self {
            all: at(if target == Target::MeanTtftS { 1.0 } else { m }),
            first: (target == Target::MeanTpotS).then(|| (at(1.0), (m - 1.0).max(1.0))),
            output_tokens: m,
            kv_capacity_tokens: case.kv_capacity_tokens.filter(|c| *c > 0.0),
            per_replica: target == Target::EnergyJ,
            case: *case,
        }
    }

    /// Whether it counts once for each replica: energies add up, times do not.
    pub(super) fn per_replica(&self) -> bool {
        self.per_replica
    }

    /// The batches for which the law is a sum of powers of the batch, and that sum; ascending.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let overflows = [self.output_tokens, self.all.output_tokens]
            .into_iter()
            .chain(self.first.iter().map(|(first, _)| first.output_tokens))
            .filter_map(|output| self.queued_share(output))
            .map(f64::recip);
        let mut edges: Vec<f64> = overflows.chain([0.0, self.case.pipeline_parallel, f64::INFINITY]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let between = edges.windows(2).filter_map(|pair| {
            let [from, to] = *pair else { return None };
            Some(Range { from, to, sum: self.power_sum(from)? })
        });
        between.collect()
    }

    /// The sum of powers for batches from `from` to the next edge; `None` where a symbol is no power there.
    fn power_sum(&self, from: f64) -> Option<PowerSum> {
        let scale = self.powers(self.output_tokens, from)?;
        let all = self.powers(self.all.output_tokens, from)?;
        let mut sum = PowerSum::default();
        let Some((first, steps)) = &self.first else {
            for term in &self.all.terms {
                let (factor, power) = term.as_power(&all, &scale);
                sum.add(factor, power);
            }
            return Some(sum);
        };
        let start = self.powers(first.output_tokens, from)?;
        for (whole, first) in self.all.terms.iter().zip(&first.terms) {
            let (whole, power) = whole.as_power(&all, &scale);
            let (first, other) = first.as_power(&start, &scale);
            // A difference of two powers is none, and where it ends at zero is another edge.
            if power != other && first != 0.0 {
                return None;
            }
            sum.add((whole - first).max(0.0) / steps, power);
        }
        Some(sum)
    }

    /// Waves per sequence once the cache overflows: `(S+m)/capacity`, at most one.
    fn queued_share(&self, output_tokens: f64) -> Option<f64> {
        let capacity = self.kv_capacity_tokens?;
        Some(((self.case.input_tokens + output_tokens) / capacity).min(1.0))
    }

    /// What the moving symbols are for batches from `from` to the next edge.
    fn powers(&self, output_tokens: f64, from: f64) -> Option<Powers> {
        let of = Case { output_tokens, ..self.case };
        let stages = of.pipeline_parallel;
        let queued = self.queued_share(output_tokens).filter(|share| from >= share.recip());
        let (waves, micro, together) = match queued {
            // As many waves as the cache forces: each holds the same number of sequences, however large the batch is.
            Some(share) => {
                let micro = share.recip().clamp(1.0, stages.max(1.0));
                (share, micro, 1.0 / (share * micro))
            }
            // More sequences visit more experts, unless there are none: a single one then reads all weights.
            None if (stages <= 1.0 || from >= stages) && of.coverage(1.0) == 1.0 => (1.0, stages.max(1.0), 1.0),
            None => return None,
        };
        let values = values(&of, 1.0, waves, micro, together);
        Some(Powers { values, is_queued: queued.is_some() })
    }

    /// The prediction for `replicas` replicas that hold `batch` sequences each.
    pub(super) fn value(&self, batch: f64, replicas: f64) -> f64 {
        let scale = self.moving(self.output_tokens, batch);
        let of = |output: f64| if output == self.output_tokens { scale } else { self.moving(output, batch) };
        let all = of(self.all.output_tokens);
        let value = match &self.first {
            None => self.all.terms.iter().map(|term| term.at(&all, &scale)).sum::<f64>(),
            Some((first, steps)) => {
                let start = of(first.output_tokens);
                let terms = self.all.terms.iter().zip(&first.terms);
                let decode = terms.map(|(whole, first)| (whole.at(&all, &scale) - first.at(&start, &scale)).max(0.0));
                decode.sum::<f64>() / steps
            }
        };
        if self.per_replica { value * replicas } else { value }
    }

    fn moving(&self, output_tokens: f64, batch: f64) -> Moving {
        let of = Case { output_tokens, ..self.case };
        let (stages, tokens) = (of.pipeline_parallel, of.input_tokens + output_tokens);
        let waves = self.kv_capacity_tokens.map_or(1.0, |capacity| (batch * tokens / capacity).min(batch).max(1.0));
        let micro = (batch / waves).clamp(1.0, stages.max(1.0));
        let together = batch / (waves * micro);
        let values = values(&of, batch, waves, micro, together);
        Moving { values, is_full: micro == stages }
    }
}

/// The symbols of [`MOVING`], in its order, where `together` sequences are in one micro-batch.
fn values(of: &Case, batch: f64, waves: f64, micro: f64, together: f64) -> [f64; MOVING.len()] {
    let stages = of.pipeline_parallel;
    let bubble = (micro + stages - 1.0) / micro;
    [batch, of.coverage(together), of.reads(together), waves, micro, stages / micro, bubble]
}

impl Batch {
    fn new(law: &Law, case: &Case) -> Self {
        let exponents = law.exponent_values();
        // What the pipeline's symbols are when it is full.
        let full = &Case { batch_size: f64::MAX, kv_capacity_tokens: None, ..*case };
        let place = |symbol: Symbol| MOVING.iter().position(|s| *s == symbol);
        let fold = |(term, coefficient): (&crate::law::Term, f64)| {
            let mut folded =
                Term { constant: coefficient, constant_full: 1.0, powers: [0.0; MOVING.len()], scaling: [0.0; 3] };
            for factor in &term.product {
                match place(factor.symbol).and_then(|i| folded.powers.get_mut(i)) {
                    Some(moving) => *moving += factor.power,
                    None => folded.constant *= power(full.value(factor.symbol), factor.power),
                }
            }
            for (symbol, j) in law.skeleton.scalings(term) {
                let exponent = exponents.get(j).copied().unwrap_or(0.0);
                let slot = place(symbol).and_then(|i| i.checked_sub(MOVING_FULL));
                match slot.and_then(|i| folded.scaling.get_mut(i)) {
                    Some(moving) => *moving += exponent,
                    None => folded.constant *= power(full.value(symbol), exponent),
                }
            }
            let pipeline = MOVING.iter().skip(MOVING_FULL);
            let pipeline = pipeline.zip(folded.powers.iter().skip(MOVING_FULL).zip(&folded.scaling));
            let pipeline = pipeline.map(|(s, (known, fitted))| power(full.value(*s), known + fitted));
            folded.constant_full = folded.constant * pipeline.product::<f64>();
            folded
        };
        let terms = law.skeleton.terms.iter().zip(law.coefficient_values()).map(fold).collect();
        Self { terms, output_tokens: case.output_tokens }
    }
}

impl Term {
    /// The term as a factor and a power of the batch.
    fn as_power(&self, at: &Powers, scale: &Powers) -> (f64, f64) {
        let known = at.values.iter().zip(&self.powers);
        let fitted = scale.values.iter().skip(MOVING_FULL).zip(&self.scaling);
        let factors = known.chain(fitted).map(|(value, exponent)| power(*value, *exponent));
        let [batch, _, _, waves, ..] = self.powers;
        (self.constant * factors.product::<f64>(), if at.is_queued { batch + waves } else { batch })
    }

    /// The term at `at`, its fitted powers taken at `scale`.
    fn at(&self, at: &Moving, scale: &Moving) -> f64 {
        let moving = |count: usize| -> f64 {
            at.values.iter().zip(&self.powers).take(count).map(|(value, exponent)| power(*value, *exponent)).product()
        };
        if at.is_full && scale.is_full {
            return self.constant_full * moving(MOVING_FULL);
        }
        let fitted = scale.values.iter().skip(MOVING_FULL).zip(&self.scaling);
        self.constant * moving(MOVING.len()) * fitted.map(|(value, exponent)| power(*value, *exponent)).product::<f64>()
    }
}

/// `powf` without its cost for the powers that skeletons nearly always have.
fn power(base: f64, exponent: f64) -> f64 {
    if exponent == 0.0 {
        1.0
    } else if exponent == 1.0 {
        base
    } else {
        base.powf(exponent)
    }
}
