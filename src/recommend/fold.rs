//! A law folded down to what varies between the candidates of one pair of degrees.
//!
//! With the model, `t`, `p`, `S` and `m` fixed and the pipeline full, only three symbols of a skeleton still move with the
//! batch: `B`, the expert coverage `c` and the waves `w`. Everything else is folded into one constant per term, so that a
//! candidate costs a few multiplications. The few batches that leave pipeline stages empty are evaluated in full.
//! `Law::predict` remains the reference; a test holds the two together.

use crate::card::model::expert_coverage;
use crate::law::{Case, Law, Symbol, Target};

/// One term: `constant · B^batch · c^coverage · w^waves`.
#[derive(Debug, Clone, Copy)]
struct Term {
    constant: f64,
    batch: f64,
    coverage: f64,
    waves: f64,
}

/// All terms at one number of output tokens.
#[derive(Debug)]
struct Batch {
    terms: Vec<Term>,
    sequence_tokens: f64,
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
        let (waves, coverage) = self.occupancy(&self.all, batch);
        if batch / waves < self.pipeline_parallel {
            let case = Case { batch_size: batch, data_parallel: replicas, ..self.case };
            return self.law.contributions(&case).iter().sum();
        }
        let value = match &self.first {
            None => self.all.terms.iter().map(|term| term.at(batch, coverage, waves)).sum::<f64>(),
            Some((first, steps)) => {
                let (first_waves, first_coverage) = self.occupancy(first, batch);
                let decode = self.all.terms.iter().zip(&first.terms).map(|(all, first)| {
                    (all.at(batch, coverage, waves) - first.at(batch, first_coverage, first_waves)).max(0.0)
                });
                decode.sum::<f64>() / steps
            }
        };
        if self.per_replica { value * replicas } else { value }
    }

    fn occupancy(&self, at: &Batch, batch: f64) -> (f64, f64) {
        let waves =
            self.kv_capacity_tokens.map_or(1.0, |capacity| (batch * at.sequence_tokens / capacity).min(batch).max(1.0));
        let together = batch / (waves * self.pipeline_parallel);
        let covered = expert_coverage(self.case.num_experts, self.case.experts_per_token, together);
        (waves, 1.0 - self.case.routed_share * (1.0 - covered))
    }
}

impl Batch {
    fn new(law: &Law, case: &Case) -> Self {
        let exponents = law.exponent_values();
        // What the pipeline's symbols are when it is full.
        let case = &Case { batch_size: f64::MAX, kv_capacity_tokens: None, ..*case };
        let fold = |(term, coefficient): (&crate::law::Term, f64)| {
            let mut folded = Term { constant: coefficient, batch: 0.0, coverage: 0.0, waves: 0.0 };
            for factor in &term.product {
                match factor.symbol {
                    Symbol::Batch => folded.batch += factor.power,
                    Symbol::Coverage => folded.coverage += factor.power,
                    Symbol::Waves => folded.waves += factor.power,
                    fixed => folded.constant *= power(case.value(fixed), factor.power),
                }
            }
            folded.constant *= law.skeleton.scale(term, &exponents, case);
            folded
        };
        Self {
            terms: law.skeleton.terms.iter().zip(law.coefficient_values()).map(fold).collect(),
            sequence_tokens: case.input_tokens + case.output_tokens,
        }
    }
}

impl Term {
    fn at(&self, batch: f64, coverage: f64, waves: f64) -> f64 {
        self.constant * power(batch, self.batch) * power(coverage, self.coverage) * power(waves, self.waves)
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
