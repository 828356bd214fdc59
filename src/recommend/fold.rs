//! A law folded down to what varies between the candidates of one pair of degrees.
//!
//! With the model, `t`, `p`, `S` and `m` fixed and the pipeline full, only four symbols of a skeleton still move with the
//! batch: `B`, the waves `w`, and the expert coverage `c` with the reads `r` made of it. Everything else is folded into one constant per term, so that a
//! candidate costs a few multiplications. The few batches that leave pipeline stages empty are evaluated in full.
//! `Law::predict` remains the reference; a test holds the two together.

use crate::law::{Case, Law, Symbol, Target};

/// One term: `constant · B^batch · c^coverage · r^reads · w^waves`.
#[derive(Debug, Clone, Copy)]
struct Term {
    constant: f64,
    batch: f64,
    coverage: f64,
    reads: f64,
    waves: f64,
}

/// What the symbols that move with the batch are at one batch.
#[derive(Debug, Clone, Copy)]
struct Occupancy {
    batch: f64,
    coverage: f64,
    reads: f64,
    waves: f64,
}

/// All terms at one number of output tokens.
#[derive(Debug)]
struct Batch {
    terms: Vec<Term>,
    /// The degrees, lengths and card; its batch is not looked at.
    case: Case,
}

/// One law at fixed degrees and lengths.
#[derive(Debug)]
pub(super) struct Folded<'a> {
    /// The whole batch, or its first token where the target is the time to it.
    all: Batch,
    /// The batch stopped at its first token, and the decode steps that share the rest: for times per output token.
    first: Option<(Batch, f64)>,
    kv_capacity_tokens: Option<f64>,
    pipeline_parallel: f64,
    per_replica: bool,
    /// For batches too small to fill the pipeline.
    law: &'a Law,
    case: Case,
}

impl<'a> Folded<'a> {
    /// `case` carries the degrees, lengths, card and capacity; its batch is not looked at.
    pub(super) fn new(law: &'a Law, case: &Case) -> Self {
        let target = law.skeleton.target;
        let m = case.output_tokens;
        let at = |output: f64| Batch::new(law, &case.with_output(output));
        Self {
            all: at(if target == Target::MeanTtftS { 1.0 } else { m }),
            first: (target == Target::MeanTpotS).then(|| (at(1.0), (m - 1.0).max(1.0))),
            kv_capacity_tokens: case.kv_capacity_tokens.filter(|c| *c > 0.0),
            pipeline_parallel: case.pipeline_parallel,
            per_replica: target == Target::EnergyJ,
            law,
            case: *case,
        }
    }

    /// The prediction for `replicas` replicas that hold `batch` sequences each.
    pub(super) fn value(&self, batch: f64, replicas: f64) -> f64 {
        let at = self.occupancy(&self.all, batch);
        if batch / at.waves < self.pipeline_parallel {
            let case = Case { batch_size: batch, data_parallel: replicas, ..self.case };
            return self.law.contributions(&case).iter().sum();
        }
        let value = match &self.first {
            None => self.all.terms.iter().map(|term| term.at(at)).sum::<f64>(),
            Some((first, steps)) => {
                let at_first = self.occupancy(first, batch);
                let terms = self.all.terms.iter().zip(&first.terms);
                let decode = terms.map(|(all, first)| (all.at(at) - first.at(at_first)).max(0.0));
                decode.sum::<f64>() / steps
            }
        };
        if self.per_replica { value * replicas } else { value }
    }

    fn occupancy(&self, of: &Batch, batch: f64) -> Occupancy {
        let tokens = of.case.input_tokens + of.case.output_tokens;
        let waves = self.kv_capacity_tokens.map_or(1.0, |capacity| (batch * tokens / capacity).min(batch).max(1.0));
        let together = batch / (waves * self.pipeline_parallel);
        Occupancy { batch, waves, coverage: of.case.coverage(together), reads: of.case.reads(together) }
    }
}

impl Batch {
    fn new(law: &Law, case: &Case) -> Self {
        let exponents = law.exponent_values();
        // What the pipeline's symbols are when it is full.
        let full = &Case { batch_size: f64::MAX, kv_capacity_tokens: None, ..*case };
        let fold = |(term, coefficient): (&crate::law::Term, f64)| {
            let mut folded = Term { constant: coefficient, batch: 0.0, coverage: 0.0, reads: 0.0, waves: 0.0 };
            for factor in &term.product {
                match factor.symbol {
                    Symbol::Batch => folded.batch += factor.power,
                    Symbol::Coverage => folded.coverage += factor.power,
                    Symbol::Reads => folded.reads += factor.power,
                    Symbol::Waves => folded.waves += factor.power,
                    fixed => folded.constant *= power(full.value(fixed), factor.power),
                }
            }
            folded.constant *= law.skeleton.scale(term, &exponents, full);
            folded
        };
        Self { terms: law.skeleton.terms.iter().zip(law.coefficient_values()).map(fold).collect(), case: *case }
    }
}

impl Term {
    fn at(&self, at: Occupancy) -> f64 {
        self.constant
            * power(at.batch, self.batch)
            * power(at.coverage, self.coverage)
            * power(at.reads, self.reads)
            * power(at.waves, self.waves)
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
