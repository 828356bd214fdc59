//! From what a search left to the answer: ranking, front, chances, rules of thumb, warnings.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Error;
use super::answer::{Alternative, Candidate, Estimate, Exclusion, LimitCheck, Recommendation, figure};
use super::limit::{Limit, Objective, Quantity};
use super::platform::Platform;
use super::probability::{Contender, DRAWS, probabilities};
use super::search::{Point, Search, Tally};
use crate::law::{Target, Verdict};

/// Configurations that take part in the draws: the best by point prediction. Further down nothing has a chance that
/// 2,000 draws could show, unless hundreds are alike, and then their order says nothing anyway.
const CONTENDERS: usize = 256;

/// Longest front that is reported.
const FRONT: usize = 200;

impl Search<'_> {
    /// The answer, from points that are sorted already.
    pub(super) fn answer(self) -> Result<Recommendation, Error> {
        let request = self.request;
        let Some(first) = self.feasible.first().copied() else {
            let reasons: Vec<_> = self.exclusions()?.iter().map(Exclusion::to_string).collect();
            return Err(Error::NothingFeasible { candidates: self.candidates, reasons: reasons.join("; ") });
        };
        let top = request.top.max(1);
        let front = self.front();
        let kinds = self.kinds(top.max(CONTENDERS));
        let chances = self.chances(&kinds)?;
        let mut ranked = Vec::new();
        for (i, (point, replicas)) in kinds.iter().take(top).enumerate() {
            let mut candidate = self.candidate(point, &first, &front)?;
            candidate.probability_best = chances.get(i).copied();
            candidate.other_data_parallel = replicas.clone();
            ranked.push(candidate);
        }
        let pareto = front.iter().filter_map(|i| self.feasible.get(*i)).take(FRONT);
        let pareto = pareto.map(|p| self.candidate(p, &first, &front)).collect::<Result<_, _>>()?;
        let outside = self.outside.iter().take(top).map(|p| self.candidate(p, &first, &[]));
        let outside = outside.collect::<Result<Vec<_>, _>>()?;
        Ok(Recommendation {
            model: self.platforms.first().map(|p| p.model().to_owned()).unwrap_or_default(),
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            batch_size: request.batch_size,
            max_gpus: request.max_gpus,
            objective: request.objective,
            limits: request.limits.clone(),
            simulated: self.platforms.iter().any(|p| p.energy().simulated),
            candidates: self.candidates,
            feasible: self.feasible.len(),
            excluded: self.exclusions()?,
            margin_percent: kinds.get(1).map(|(second, _)| extra_percent(second, &first)),
            alternatives: self.alternatives(&first, &front)?,
            warnings: self.warnings(&ranked),
            ranked,
            pareto,
            latency: self.latency.map(quantity),
            outside,
            contenders: chances.len(),
            draws: DRAWS,
            seed: request.seed,
        })
    }

    /// Indices of the feasible points that no other beats in energy and latency; they are sorted by energy already.
    fn front(&self) -> Vec<usize> {
        let mut least = f64::INFINITY;
        let on_front = |(i, point): (usize, &Point)| {
            let better = point.latency < least;
            least = least.min(point.latency);
            better.then_some(i)
        };
        self.feasible.iter().enumerate().filter_map(on_front).collect()
    }

    /// The first `most` configurations that differ in more than the number of replicas, each with the other numbers.
    fn kinds(&self, most: usize) -> Vec<(Point, Vec<u32>)> {
        let mut kinds: Vec<(Point, Vec<u32>)> = Vec::new();
        let mut known: HashMap<(usize, u32, u32, u64), usize> = HashMap::new();
        for point in &self.feasible {
            let per_replica = (point.batch / f64::from(point.replicas)).to_bits();
            match known.entry((point.platform, point.tensor, point.pipeline, per_replica)) {
                Entry::Occupied(first) => {
                    if let Some((_, replicas)) = kinds.get_mut(*first.get()) {
                        replicas.push(point.replicas);
                    }
                }
                Entry::Vacant(_) if kinds.len() >= most => break,
                Entry::Vacant(place) => {
                    place.insert(kinds.len());
                    kinds.push((*point, Vec::new()));
                }
            }
        }
        kinds
    }

    fn chances(&self, kinds: &[(Point, Vec<u32>)]) -> Result<Vec<f64>, Error> {
        let mut drawn = Vec::new();
        for (point, _) in kinds.iter().take(CONTENDERS) {
            let Some(platform) = self.platforms.get(point.platform) else { continue };
            drawn.push(Contender {
                law: platform.energy(),
                law_index: point.platform,
                case: platform.case(point.tensor, point.pipeline, point.replicas, point.batch)?,
                ln_objective: point.energy_per_token_j.ln(),
                known_model: platform.known_model(),
            });
        }
        Ok(probabilities(&drawn, self.request.seed))
    }

    /// What rules of thumb would have picked at the winner's batch size, so that only the deployment differs.
    fn alternatives(&self, first: &Point, front: &[usize]) -> Result<Vec<Alternative>, Error> {
        let same_batch = || self.feasible.iter().filter(|p| p.batch == first.batch);
        let fewest = same_batch().min_by(|a, b| a.num_gpus().cmp(&b.num_gpus()).then_with(|| a.order(b)));
        let fastest = self
            .latency
            .and_then(|_| same_batch().min_by(|a, b| a.latency.total_cmp(&b.latency).then_with(|| a.order(b))));
        let rules = [("fewest GPUs", fewest), ("least latency", fastest)];
        let picks = rules.into_iter().filter_map(|(rule, point)| Some((rule, point?)));
        picks
            .map(|(rule, p)| {
                let same_as_best = p.order(first) == Ordering::Equal;
                Ok(Alternative { rule, same_as_best, pick: self.candidate(p, first, front)? })
            })
            .collect()
    }

    fn exclusions(&self) -> Result<Vec<Exclusion>, Error> {
        let mut excluded = Vec::new();
        let mut push = |reason: String, tally: &Tally, closest: &dyn Fn(&Point, f64) -> Option<String>| {
            if tally.count > 0 {
                let closest = tally.closest.as_ref().and_then(|(_, point, value)| closest(point, *value));
                excluded.push(Exclusion { reason, count: tally.count, closest });
            }
        };
        let label =
            |p: &Point| format!("TP {} x PP {} x DP {}, batch {}", p.tensor, p.pipeline, p.replicas, figure(p.batch));
        push("memory (weights and one sequence of KV cache)".to_owned(), &self.memory, &|p, value| {
            Some(format!("TP {} x PP {} needs {} times what there is", p.tensor, p.pipeline, figure(value)))
        });
        push("the measured range of degrees and batch sizes".to_owned(), &self.range, &|_, _| None);
        for (limit, tally) in self.request.limits.iter().zip(&self.limits) {
            push(format!("limit {limit}"), tally, &|p, value| {
                Some(format!("{} {} with {}", limit.quantity, figure(value), label(p)))
            });
        }
        Ok(excluded)
    }

    fn candidate(&self, point: &Point, first: &Point, front: &[usize]) -> Result<Candidate, Error> {
        let request = self.request;
        let platform = self.platforms.get(point.platform).or(self.platforms.first());
        let platform = platform.ok_or_else(|| Error::Workload("no platform is left".to_owned()))?;
        let case = platform.case(point.tensor, point.pipeline, point.replicas, point.batch)?;
        let predict = |target| platform.law(target).map(|law| law.predict(&case, platform.known_model()));
        let energy = platform.energy().predict(&case, platform.known_model());
        let time = |target| predict(target).map(|p| Estimate::of(&p, 1.0));
        let duration_s = time(Target::DurationS);
        let tokens = point.batch * request.output_tokens;
        let on_front = |i: &usize| self.feasible.get(*i).is_some_and(|other| other.order(point) == Ordering::Equal);
        let mut candidate = Candidate {
            gpu_model: platform.gpu_model().to_owned(),
            engine: platform.engine().map(str::to_owned),
            precision: platform.precision().map(str::to_owned),
            tensor_parallel: point.tensor,
            pipeline_parallel: point.pipeline,
            data_parallel: point.replicas,
            num_gpus: point.num_gpus(),
            batch_size: point.batch,
            energy_j: Estimate::of(&energy, 1.0),
            energy_per_token_j: Estimate::of(&energy, tokens),
            energy_per_request_j: Estimate::of(&energy, point.batch),
            mean_ttft_s: time(Target::MeanTtftS),
            mean_tpot_s: time(Target::MeanTpotS),
            duration_s,
            mean_power_w: duration_s.map(|d| Estimate {
                value: energy.value / d.value,
                low: energy.low / d.high,
                high: energy.high / d.low,
            }),
            throughput_tok_s: duration_s.map(|d| Estimate {
                value: tokens / d.value,
                low: tokens / d.high,
                high: tokens / d.low,
            }),
            outside: energy.outside,
            extra_energy_percent: extra_percent(point, first),
            probability_best: None,
            other_data_parallel: Vec::new(),
            pareto: self.latency.map(|_| front.iter().any(on_front)),
            limits: Vec::new(),
        };
        candidate.limits = request.limits.iter().filter_map(|l| check_limit(*l, &candidate)).collect();
        Ok(candidate)
    }

    fn warnings(&self, ranked: &[Candidate]) -> Vec<String> {
        let mut warnings: Vec<String> = self.platforms.iter().flat_map(Platform::warnings).collect();
        for verdict in self.platforms.iter().flat_map(|p| &p.energy().verdicts) {
            if matches!(verdict, Verdict::NotConverged { .. } | Verdict::TooFewRows { .. }) {
                warnings.push(verdict.to_string());
            }
        }
        let Some(best) = ranked.first() else { return warnings };
        if !best.outside.is_empty() {
            warnings.push(format!("the first lies outside the measured range: {}", best.outside.join("; ")));
        }
        for check in best.limits.iter().filter(|l| !l.holds_with_margin) {
            warnings.push(format!(
                "the first respects {} at {}, but its 90 % interval reaches {}",
                check.limit,
                figure(check.value),
                figure(check.worst)
            ));
        }
        if let Some(chance) = best.probability_best.filter(|p| *p < 0.5) {
            warnings.push(format!(
                "the law does not tell the first few apart: the first is best with probability {:.0} %",
                100.0 * chance
            ));
        }
        warnings.dedup();
        warnings
    }
}

fn extra_percent(point: &Point, first: &Point) -> f64 {
    100.0 * (point.energy_per_token_j / first.energy_per_token_j - 1.0)
}

fn quantity(target: Target) -> Quantity {
    match target {
        Target::EnergyJ => Quantity::EnergyJ,
        Target::DurationS => Quantity::DurationS,
        Target::MeanTtftS => Quantity::MeanTtftS,
        Target::MeanTpotS => Quantity::MeanTpotS,
    }
}

fn check_limit(limit: Limit, candidate: &Candidate) -> Option<LimitCheck> {
    let estimate = candidate.estimate(limit.quantity)?;
    let worst = if limit.quantity.is_minimum() { estimate.low } else { estimate.high };
    Some(LimitCheck {
        limit,
        value: estimate.value,
        worst,
        holds: limit.holds(estimate.value),
        holds_with_margin: limit.holds(worst),
    })
}

/// The figure that an objective leads with.
impl Objective {
    /// The figure of `candidate` that the objective makes small.
    pub fn of(self, candidate: &Candidate) -> Estimate {
        match self {
            Self::EnergyPerToken => candidate.energy_per_token_j,
            Self::EnergyPerRequest => candidate.energy_per_request_j,
        }
    }
}
