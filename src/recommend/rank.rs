//! From what a search left to the answer: ranking, front, chances, rules of thumb, warnings.

use std::collections::HashSet;
use std::collections::hash_map::{self, HashMap};

use super::Error;
use super::answer::{
    Alternative, Candidate, Estimate, Exclusion, LawOutside, LimitCheck, Recommendation, figure, overlap_note,
};
use super::bill::{Day, requests_per_day};
use super::limit::{Limit, Quantity};
use super::platform::Platform;
use super::probability::{Contender, DRAWS, probabilities};
use super::search::{CONTENDERS, Point, Search};
use super::select::{Entry, Tally};
use super::spread::IDLE_FACTOR;
use crate::law::{Case, Law, Prediction, Target};

/// A law, and the cases that it is asked for with their shares.
type Asked<'a> = (&'a Law, Vec<(f64, Case)>);

/// Longest front that is reported.
pub(super) const FRONT: usize = 200;

impl Search<'_> {
    /// The answer.
    pub(super) fn answer(self) -> Result<Recommendation, Error> {
        let request = self.request;
        let best = self.points(&self.found.best.sorted());
        let Some(first) = best.first().copied() else { return Err(self.nothing()?) };
        let top = request.top.max(1);
        let kinds = self.kinds(&best, top.max(CONTENDERS));
        let contenders = self.contenders(&kinds)?;
        let chances = probabilities(&contenders, request.seed);
        let requests_per_day = self.requests_per_day(&first)?;
        let told = |point: &Point| self.candidate(point, &first, requests_per_day);
        let mut ranked = Vec::new();
        for (i, (point, replicas)) in kinds.iter().take(top).enumerate() {
            let mut candidate = told(point)?;
            candidate.probability_best = chances.get(i).copied();
            candidate.other_data_parallel = replicas.clone();
            ranked.push(candidate);
        }
        let front = self.points(&self.found.front.first(FRONT));
        let pareto = front.iter().map(told).collect::<Result<_, _>>()?;
        let outside = self.points(self.found.outside.sorted().iter().take(top));
        let outside = outside.iter().map(told).collect::<Result<Vec<_>, _>>()?;
        Ok(Recommendation {
            model: self.platforms.first().map(|p| p.model().to_owned()).unwrap_or_default(),
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            trace: request.trace.as_ref().map(|t| t.path.clone()),
            lengths: request.trace.as_ref().map(|t| t.lengths.clone()),
            batch_size: request.batch_size,
            arrival_rate: request.arrival_rate,
            requests_per_day,
            prices: request.prices,
            max_gpus: request.max_gpus,
            objective: self.objective,
            varies: self.varies,
            not_judged: self.not_judged.clone(),
            limits: request.limits.clone(),
            simulated: self.platforms.iter().any(|p| p.energy().simulated),
            candidates: self.found.candidates,
            feasible: self.found.feasible,
            excluded: self.exclusions()?,
            margin_percent: kinds.get(1).map(|(second, _)| extra_percent(second.objective, first.objective)),
            alternatives: self.alternatives(&first, ranked.first(), requests_per_day)?,
            warnings: self.warnings(&ranked, &first),
            ranked,
            pareto,
            latency: self.latency.map(quantity),
            outside,
            contenders: chances.len(),
            draws: DRAWS,
            seed: request.seed,
        })
    }

    /// Why there is no answer.
    pub(super) fn nothing(&self) -> Result<Error, Error> {
        let excluded = self.exclusions()?;
        let overlap = overlap_note(&excluded, self.found.candidates).map(str::to_owned);
        let reasons: Vec<_> =
            excluded.iter().map(Exclusion::to_string).chain(overlap).chain(self.not_judged.iter().cloned()).collect();
        Ok(Error::NothingFeasible { candidates: self.found.candidates, reasons: reasons.join("; ") })
    }

    /// Requests in a day: those that come, or else those that the first can serve at full speed.
    fn requests_per_day(&self, first: &Point) -> Result<Option<f64>, Error> {
        if let Some(rate) = self.request.arrival_rate {
            return Ok(Some(requests_per_day(rate)));
        }
        let duration = self.predict(first, Target::DurationS)?.map(|p| p.value).filter(|d| *d > 0.0);
        Ok(duration.map(|d| requests_per_day(first.batch / d)))
    }

    /// The law of `target` on the platform of `point`, and the cases that it is asked for.
    pub(super) fn law_and_cases(&self, point: &Point, target: Target) -> Result<Option<Asked<'_>>, Error> {
        let Some(platform) = self.platforms.get(point.platform) else { return Ok(None) };
        let Some(law) = platform.law(target) else { return Ok(None) };
        let base = platform.case(point.tensor, point.pipeline, point.replicas, point.batch)?;
        Ok(Some((law, platform.cases(target, base))))
    }

    pub(super) fn predict(&self, point: &Point, target: Target) -> Result<Option<Prediction>, Error> {
        let known = self.platforms.get(point.platform).is_some_and(|p| p.known_model());
        Ok(self.law_and_cases(point, target)?.map(|(law, cases)| law.predict_mean(&cases, known)))
    }

    /// The first `most` configurations that differ in more than the number of replicas, each with the other numbers.
    pub(super) fn kinds(&self, best: &[Point], most: usize) -> Vec<(Point, Vec<u32>)> {
        let mut kinds: Vec<(Point, Vec<u32>)> = Vec::new();
        let mut known: HashMap<(usize, u32, u32, u64, u32), usize> = HashMap::new();
        for point in best {
            let per_replica = (point.batch / f64::from(point.replicas)).to_bits();
            // Under a given load the number of replicas decides how long each of them waits.
            let replicas = if self.request.arrival_rate.is_some() { point.replicas } else { 0 };
            match known.entry((point.platform, point.tensor, point.pipeline, per_replica, replicas)) {
                hash_map::Entry::Occupied(first) => {
                    if let Some((_, replicas)) = kinds.get_mut(*first.get()) {
                        replicas.push(point.replicas);
                    }
                }
                hash_map::Entry::Vacant(_) if kinds.len() >= most => break,
                hash_map::Entry::Vacant(place) => {
                    place.insert(kinds.len());
                    kinds.push((*point, Vec::new()));
                }
            }
        }
        kinds
    }

    /// The best of the kinds as they enter the draws.
    pub(super) fn contenders(&self, kinds: &[(Point, Vec<u32>)]) -> Result<Vec<Contender<'_>>, Error> {
        let mut contenders = Vec::new();
        for (point, _) in kinds.iter().take(CONTENDERS) {
            let Some((law, cases)) = self.law_and_cases(point, Target::EnergyJ)? else { continue };
            let timed = self.timed(point)?;
            contenders.push(Contender {
                law,
                law_index: point.platform,
                gradient: law.mean_and_gradient(&cases).1,
                moving: point.objective - point.objective_fixed,
                fixed: point.objective_fixed - timed.as_ref().map_or(0.0, |t| t.rented + t.waiting),
                timed,
                known_model: self.platforms.get(point.platform).is_some_and(|p| p.known_model()),
            });
        }
        Ok(contenders)
    }

    /// What rules of thumb would have picked at the winner's batch size, so that only the deployment differs; under a given
    /// load, whose batch follows from the deployment, among all.
    fn alternatives(
        &self,
        first: &Point,
        best: Option<&Candidate>,
        requests_per_day: Option<f64>,
    ) -> Result<Vec<Alternative>, Error> {
        let place = self.batches.iter().position(|b| *b == first.batch).unwrap_or(0);
        let Some(rules) = self.found.rules.get(place) else { return Ok(Vec::new()) };
        let rules = [("fewest GPUs", rules.fewest_gpus), ("least latency", rules.fastest)];
        let picks = rules.into_iter().filter_map(|(rule, entry)| Some((rule, self.point(&entry?)?)));
        picks
            .map(|(rule, p)| {
                let same_as_best = p.place() == first.place();
                let pick = self.candidate(&p, first, requests_per_day)?;
                let days = pick.per_day.zip(best.and_then(|b| b.per_day));
                let waste_per_day = days.map(|(own, best)| own.waste(&best, self.request.prices.pue));
                Ok(Alternative { rule, same_as_best, waste_per_day, pick })
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
        let platform = |p: &Point| {
            let platform = self.platforms.get(p.platform);
            platform.map(|platform| self.varies.in_brackets(platform.names())).unwrap_or_default()
        };
        let label = |p: &Point| {
            let (batch, platform) = (figure(p.batch), platform(p));
            format!("TP {} x PP {} x DP {}, batch {batch}{platform}", p.tensor, p.pipeline, p.replicas)
        };
        push("memory (weights and one sequence of KV cache)".to_owned(), &self.found.memory, &|p, value| {
            let (needs, platform) = (figure(value), platform(p));
            Some(format!("TP {} x PP {}{platform} needs {needs} times what there is", p.tensor, p.pipeline))
        });
        push("the measured range of degrees and batch sizes".to_owned(), &self.found.range, &|_, _| None);
        let arriving = self.request.arrival_rate.unwrap_or_default();
        push(format!("{} requests per second", figure(arriving)), &self.found.overrun, &|p, value| {
            Some(format!("{} per second with {}", figure(value), label(p)))
        });
        for (limit, tally) in self.request.limits.iter().zip(&self.found.limits) {
            push(format!("limit {limit}"), tally, &|p, value| {
                Some(format!("{} {} with {}", limit.quantity, figure(value), label(p)))
            });
        }
        Ok(excluded)
    }

    fn candidate(&self, point: &Point, first: &Point, requests_per_day: Option<f64>) -> Result<Candidate, Error> {
        let request = self.request;
        let nowhere = || Error::Workload("no platform is left".to_owned());
        let platform = self.platforms.get(point.platform).ok_or_else(nowhere)?;
        let energy = self.predict(point, Target::EnergyJ)?.ok_or_else(nowhere)?;
        let mut outside_by_law = Vec::new();
        let mut time = |target| {
            let Some(p) = self.predict(point, target)? else { return Ok::<_, Error>(None) };
            // What the law of energy says too is said once.
            let symbols: Vec<String> = p.outside.iter().filter(|s| !energy.outside.contains(s)).cloned().collect();
            if !symbols.is_empty() && self.used.contains(&target) {
                outside_by_law.push(LawOutside { law: target, symbols });
            }
            Ok(Some(Estimate::of(&p, 1.0)))
        };
        let (mean_ttft_s, mean_tpot_s) = (time(Target::MeanTtftS)?, time(Target::MeanTpotS)?);
        let duration_s = time(Target::DurationS)?;
        let output_tokens = self.lengths.mean_output_tokens();
        let tokens = point.batch * output_tokens;
        let per_request_j = self.request_energy(point, &energy, duration_s)?;
        let gpu_s = self.gpu_seconds(point, duration_s);
        let (cost_per_request, carbon_per_request_g) = request.prices.of_request(per_request_j, gpu_s);
        let mean_power_w = match request.arrival_rate {
            Some(rate) => Some(per_request_j.times(rate)),
            None => duration_s.map(|d| Estimate {
                value: energy.value / d.value,
                low: energy.low / d.high,
                high: energy.high / d.low,
            }),
        };
        let per_day = requests_per_day
            .map(|n| Day::of(&request.prices, n, per_request_j, cost_per_request, carbon_per_request_g));
        let request_j = |p: &Point| p.request_j + p.idle_j;
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
            energy_per_token_j: per_request_j.times(1.0 / output_tokens),
            energy_per_request_j: per_request_j,
            busy_share: request.arrival_rate.map(|_| point.busy_share),
            cost_per_request,
            carbon_per_request_g,
            per_day,
            mean_ttft_s,
            mean_tpot_s,
            duration_s,
            mean_power_w,
            throughput_tok_s: match request.arrival_rate {
                Some(rate) => Some(Estimate::exactly(rate * output_tokens)),
                None => {
                    duration_s.map(|d| Estimate { value: tokens / d.value, low: tokens / d.high, high: tokens / d.low })
                }
            },
            outside: energy.outside,
            outside_by_law,
            extra_energy_percent: extra_percent(request_j(point), request_j(first)),
            extra_percent: extra_percent(point.objective, first.objective),
            probability_best: None,
            other_data_parallel: Vec::new(),
            pareto: self.latency.map(|_| self.found.front.contains(&Entry::of(point))),
            limits: Vec::new(),
            varies: self.varies,
        };
        candidate.limits = request.limits.iter().filter_map(|l| check_limit(*l, &candidate)).collect();
        Ok(candidate)
    }

    fn warnings(&self, ranked: &[Candidate], first: &Point) -> Vec<String> {
        // What makes the first a guess comes first.
        let mut warnings: Vec<String> = ranked.first().map(Recommendation::range_warnings).unwrap_or_default();
        if self.objective != self.request.objective {
            warnings.push(format!(
                "{} is 0 whatever is chosen, as what it counts is free here: ranked by {} instead",
                self.request.objective.as_str(),
                self.objective.as_str()
            ));
        }
        warnings.extend(self.platforms.iter().flat_map(Platform::warnings));
        warnings.extend(self.doubts(first));
        let Some(best) = ranked.first() else { return warnings };
        if first.busy_share < 0.995 {
            let idle = 100.0 * (1.0 - first.busy_share);
            let known = self.platforms.get(first.platform).and_then(Platform::idle_power_w);
            let power = known.map_or_else(
                || "what they draw then is not known and not counted".to_owned(),
                |w| {
                    let [usual, low, high] = [w, w / IDLE_FACTOR, w * IDLE_FACTOR].map(figure);
                    format!("counted at the usual {usual} W of an idle GPU ({low} to {high})")
                },
            );
            warnings.push(format!("the GPUs of the first wait {} % of the time, {power}", figure(idle)));
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
        let mut said = HashSet::new();
        warnings.retain(|warning| said.insert(warning.clone()));
        warnings
    }
}

fn extra_percent(own: f64, first: f64) -> f64 {
    100.0 * (own / first - 1.0)
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
