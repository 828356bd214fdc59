//! Traces, arrivals, bills, and what to measure next.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::fixture;
use super::super::probability::{Contender, Timed, probabilities};
use super::super::*;
use super::{case, request};
use crate::card::GpuCard;
use crate::law::{Case, Law, Model};

/// The fixture with a law of durations, which arrivals and rents need.
fn timed() -> Model {
    let mut model = fixture::model();
    model.laws.push(fixture::law(Target::DurationS));
    model
}

/// What the law says of a candidate at one pair of lengths: energy and duration of its batch.
fn by_law(c: &Candidate, input: f64, output: f64) -> (f64, f64) {
    let replicas = f64::from(c.data_parallel);
    let (t, p) = (f64::from(c.tensor_parallel), f64::from(c.pipeline_parallel));
    let mut case: Case = case(t, p, replicas, c.batch_size / replicas);
    case.kv_capacity_tokens = Some((t * p * 72e9 - 138e9) / 327_680.0);
    (case.input_tokens, case.output_tokens) = (input, output);
    let of = |target| fixture::law(target).contributions(&case).iter().sum::<f64>();
    (of(Target::EnergyJ), of(Target::DurationS))
}

fn near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= 1e-9 * want.abs(), "{what}: {got} is not {want}");
}

fn traced(requests: &[(f64, f64)]) -> Request {
    let lengths = Lengths::of_requests(requests).unwrap();
    let trace = Trace { path: "trace.csv".into(), lengths, arrival_rate: None, no_rate: None };
    Request { top: 500, ..Request::of_trace(trace, Some("batch_size=32")).unwrap() }
}

#[test]
fn a_trace_costs_the_mean_of_its_requests() {
    let answer = recommend(&timed(), &traced(&[(100.0, 20.0), (100.0, 20.0), (100.0, 20.0), (2000.0, 400.0)])).unwrap();
    assert_eq!((answer.input_tokens, answer.output_tokens), (575.0, 115.0));
    assert!(answer.ranked.len() > 4);
    for c in &answer.ranked {
        let ((short_j, short_s), (long_j, long_s)) = (by_law(c, 100.0, 20.0), by_law(c, 2000.0, 400.0));
        let energy_j = 0.75 * short_j + 0.25 * long_j;
        near(c.energy_j.value, energy_j, "energy");
        near(c.energy_per_request_j.value, energy_j / 32.0, "per request");
        near(c.energy_per_token_j.value, energy_j / 32.0 / 115.0, "per token");
        let duration_s = 0.75 * short_s + 0.25 * long_s;
        near(c.throughput_tok_s.unwrap().value, 32.0 * 115.0 / duration_s, "throughput");
        near(c.mean_power_w.unwrap().value, energy_j / duration_s, "power");
    }
    // One length, however often, is that length.
    let one = recommend(&timed(), &traced(&[(1024.0, 256.0); 5])).unwrap();
    let plain = recommend(&timed(), &Request { top: 500, ..request(Some(32.0)) }).unwrap();
    assert_eq!(one.ranked, plain.ranked);
    let error = Request::of_trace(one_trace(), Some("input_tokens=5")).unwrap_err().to_string();
    assert!(error.contains("input_tokens is what the trace says"), "{error}");
}

fn one_trace() -> Trace {
    Trace { path: "t".into(), lengths: Lengths::of_one(10.0, 10.0), arrival_rate: Some(2.0), no_rate: None }
}

#[test]
fn the_longest_request_must_fit_and_what_is_outside_is_counted() {
    // 138e9 + 327680 * 25000 bytes are 146.2e9: two GPUs have 144e9.
    let long = traced(&[(1000.0, 200.0), (1000.0, 200.0), (1000.0, 200.0), (24_900.0, 100.0)]);
    let answer = recommend(&timed(), &long).unwrap();
    assert!(answer.ranked.iter().all(|c| c.tensor_parallel * c.pipeline_parallel >= 4));
    assert!(answer.warnings.iter().any(|w| w.contains("S of 25 % of the requests is outside 64 to 4096")));
}

#[test]
fn under_a_load_as_many_leave_as_come() {
    for rate in [0.02, 1.0, 4.0] {
        let ask = Request { arrival_rate: Some(rate), top: 500, ..request(None) };
        let answer = recommend(&timed(), &ask).unwrap();
        assert_eq!(answer.requests_per_day, Some(86_400.0 * rate));
        let idle_w = GpuCard::builtin(fixture::GPU).unwrap().idle_power_w;
        for c in &answer.ranked {
            let replicas = f64::from(c.data_parallel);
            let own = c.batch_size / replicas;
            let (energy_j, duration_s) = by_law(c, 1024.0, 256.0);
            let busy = c.busy_share.unwrap();
            if own > 1.0 {
                assert!((own / duration_s * replicas / rate - 1.0).abs() < 1e-9, "{}", c.label());
                assert_eq!(busy, 1.0);
            } else {
                near(busy, duration_s * rate / replicas, "busy");
            }
            let idle_j = (1.0 - busy) * idle_w * f64::from(c.num_gpus) / rate;
            near(c.energy_per_request_j.value, energy_j / c.batch_size + idle_j, "with waiting");
            near(c.mean_power_w.unwrap().value, c.energy_per_request_j.value * rate, "power");
            near(c.per_day.unwrap().energy_kwh.value, c.mean_power_w.unwrap().value * 0.024, "a day");
        }
        assert!(answer.ranked.windows(2).all(|w| w[0].energy_per_request_j.value <= w[1].energy_per_request_j.value));
        assert_eq!(rate < 0.1, answer.warnings.iter().any(|w| w.contains("of the time, counted at the")), "{rate}");
    }
    let flood = Request { arrival_rate: Some(1e4), ..request(None) };
    let error = recommend(&timed(), &flood).unwrap_err().to_string();
    assert!(error.contains("by 10000 requests per second; closest: "), "{error}");
    let error = recommend(&fixture::model(), &flood).unwrap_err().to_string();
    assert!(error.contains("an arrival rate: the model has no law of duration_s"), "{error}");
}

#[test]
fn money_counts_gpus_and_carbon_counts_energy() {
    let prices = Prices {
        price_per_kwh: Some(Rate::constant(0.2)),
        carbon_g_per_kwh: Some(Rate::constant(500.0)),
        price_per_gpu_hour: Some(2.0),
        pue: 1.5,
    };
    let ask = |objective| Request { objective, prices, top: 500, ..request(Some(32.0)) };
    let by_cost = recommend(&timed(), &ask(Objective::Cost)).unwrap();
    for c in &by_cost.ranked {
        let (energy_j, duration_s) = by_law(c, 1024.0, 256.0);
        let cost = 1.5 * 0.2 * energy_j / 3.6e6 / 32.0 + 2.0 * f64::from(c.num_gpus) * duration_s / 3600.0 / 32.0;
        near(c.cost_per_request.unwrap().value, cost, "cost");
        near(c.carbon_per_request_g.unwrap().value, 1.5 * 500.0 * energy_j / 3.6e6 / 32.0, "carbon");
        let best = by_cost.ranked[0].cost_per_request.unwrap().value;
        assert!((c.extra_percent - 100.0 * (cost / best - 1.0)).abs() < 1e-9);
    }
    assert!(by_cost.ranked.iter().map(|c| c.cost_per_request.unwrap().value).is_sorted());
    let by_carbon = recommend(&timed(), &ask(Objective::Carbon)).unwrap();
    let by_energy = recommend(&timed(), &ask(Objective::EnergyPerToken)).unwrap();
    let labels = |answer: &Recommendation| answer.ranked.iter().map(Candidate::label).collect::<Vec<_>>();
    assert_eq!(labels(&by_carbon), labels(&by_energy));
    assert_ne!(labels(&by_cost), labels(&by_energy));
    // Requests in a day at full speed: the batch of the first, again and again; waste is the difference of two days.
    let first = &by_cost.ranked[0];
    let requests = 86_400.0 * 32.0 / by_law(first, 1024.0, 256.0).1;
    near(by_cost.requests_per_day.unwrap(), requests, "requests");
    let other = by_cost.alternatives.iter().find(|a| !a.same_as_best).unwrap();
    let more = (other.pick.energy_per_request_j.value - first.energy_per_request_j.value) * requests;
    assert!((other.waste_per_day.unwrap().energy_j - more).abs() <= 1e-9 * more.abs().max(1.0));
    near(first.per_day.unwrap().cost.unwrap().value, first.cost_per_request.unwrap().value * requests, "a day's cost");
}

#[test]
fn what_nobody_priced_is_asked_for() {
    for (objective, expected) in [
        (Objective::Cost, "cost_per_request needs a price (--price-per-kwh"),
        (Objective::Carbon, "carbon_per_request_g needs the grid's carbon intensity"),
        (Objective::EnergyPerDay, "energy_per_day_kwh needs an arrival rate"),
    ] {
        let error = recommend(&timed(), &Request { objective, ..request(None) }).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let prices = Prices { price_per_gpu_hour: Some(1.0), ..Prices::default() };
    let error = recommend(&fixture::model(), &Request { prices, ..request(None) }).unwrap_err().to_string();
    assert!(error.contains("a price of GPU hours: the model has no law of duration_s"), "{error}");
    let prices = Prices { pue: 0.9, ..Prices::default() };
    assert!(recommend(&timed(), &Request { prices, ..request(None) }).unwrap_err().to_string().contains("PUE"));
}

#[test]
fn chances_are_those_of_brute_force() {
    // Three contenders of one law that share two doubts and have a fixed part each.
    let mut law: Law = fixture::law(Target::EnergyJ);
    law.covariance.iter_mut().flatten().for_each(|c| *c = 0.0);
    (law.covariance[0][0], law.covariance[1][1], law.covariance[0][1]) = (0.04, 0.01, 0.01);
    law.covariance[1][0] = 0.01;
    (law.sigma_log, law.degrees_of_freedom) = (0.05, 1e6);
    let figures = [(1.0, 0.0, [1.0, 0.2]), (0.7, 0.32, [0.3, 1.0]), (0.4, 0.65, [-0.5, 0.5])];
    let contenders: Vec<Contender<'_>> = figures
        .iter()
        .map(|(moving, fixed, slopes)| {
            let mut gradient = vec![0.0; 12];
            gradient[..2].copy_from_slice(slopes);
            Contender {
                law: &law,
                law_index: 0,
                gradient,
                moving: *moving,
                fixed: *fixed,
                known_model: true,
                timed: None,
            }
        })
        .collect();
    let got = probabilities(&contenders, 3);
    // The same by hand: a Cholesky factor of [[0.04, 0.01], [0.01, 0.01]] and sums of twelve uniform draws.
    let mut rng = ChaCha8Rng::seed_from_u64(77);
    let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    let mut wins = [0.0; 3];
    let draws = 100_000;
    for _ in 0..draws {
        let (a, b) = (normal(), normal());
        let shift = [0.2 * a, 0.05 * a + (0.01_f64 - 0.0025).sqrt() * b];
        let drawn = figures.map(|(moving, fixed, slopes)| {
            let shared = slopes[0] * shift[0] + slopes[1] * shift[1];
            moving * (shared + 0.05 * normal()).exp() + fixed
        });
        let best = (0..3).min_by(|i, j| drawn[*i].total_cmp(&drawn[*j])).unwrap();
        wins[best] += 1.0 / f64::from(draws);
    }
    for (got, want) in got.iter().zip(wins) {
        // Four standard errors of 2000 draws.
        assert!((got - want).abs() < 0.045, "{got} is not {want}");
    }
}

/// `low` and `high` as multiples of the value.
fn reach(e: Estimate) -> (f64, f64) {
    (e.low / e.value, e.high / e.value)
}

/// Money that is rent and nothing else.
fn rented() -> Request {
    let prices = Prices { price_per_gpu_hour: Some(2.0), ..Prices::default() };
    Request { objective: Objective::Cost, prices, top: 500, ..request(Some(32.0)) }
}

#[test]
fn rent_is_as_uncertain_as_the_duration_and_not_surely_the_least() {
    let model = |sigma_log: f64| {
        let mut model = timed();
        if let Some(law) = model.laws.iter_mut().find(|l| l.skeleton.target == Target::DurationS) {
            law.sigma_log = sigma_log;
        }
        model
    };
    let answer = recommend(&model(0.16), &rented()).unwrap();
    for c in &answer.ranked {
        let (cost, duration) = (reach(c.cost_per_request.unwrap()), reach(c.duration_s.unwrap()));
        assert!((cost.0 - duration.0).abs() < 1e-9 && (cost.1 - duration.1).abs() < 1e-9, "{cost:?} {duration:?}");
        assert!(cost.1 > 1.2, "{cost:?}");
        let day = reach(c.per_day.unwrap().cost.unwrap());
        assert!((day.1 - cost.1).abs() < 1e-9);
    }
    let first = |answer: &Recommendation| answer.ranked[0].probability_best.unwrap();
    assert!(first(&answer) < 0.95, "{}", first(&answer));
    // With energy in the bill both ends add up: the worst case.
    let both = Prices { price_per_kwh: Some(Rate::constant(0.3)), ..rented().prices };
    let c = &recommend(&model(0.16), &Request { prices: both, ..rented() }).unwrap().ranked[0];
    let (energy, duration) = (c.energy_per_request_j, c.duration_s.unwrap());
    let rent = 2.0 / 3600.0 * f64::from(c.num_gpus) / 32.0;
    near(c.cost_per_request.unwrap().high, 0.3 / 3.6e6 * energy.high + rent * duration.high, "the upper end");
    near(c.cost_per_request.unwrap().low, 0.3 / 3.6e6 * energy.low + rent * duration.low, "the lower end");
    // A law of durations without doubt leaves none about the order.
    let mut sure = model(0.0);
    sure.laws.iter_mut().for_each(|law| law.covariance.iter_mut().flatten().for_each(|c| *c = 0.0));
    assert_eq!(first(&recommend(&sure, &rented()).unwrap()), 1.0);
    // What is not known is worth measuring.
    assert!(measure_next(&model(0.16), &rented(), 1).unwrap().points[0].uncertainty_percent > 15.0);
}

#[test]
fn waiting_is_as_uncertain_as_what_a_waiting_gpu_draws() {
    let ask = Request { arrival_rate: Some(1e-4), ..request(None) };
    let answer = recommend(&timed(), &ask).unwrap();
    let c = &answer.ranked[0];
    assert!(c.busy_share.unwrap() < 0.01);
    // Nearly all of it is drawn while waiting: 65 W to a factor of 1.3.
    let (low, high) = reach(c.energy_per_request_j);
    assert!((1.0 / 1.31..1.0 / 1.29).contains(&low) && (1.29..1.31).contains(&high), "{low} {high}");
    assert_eq!(reach(c.mean_power_w.unwrap()), (low, high));
    let warned = answer.warnings.iter().any(|w| w.contains("the usual 65 W of an idle GPU (50 to 84.5)"));
    assert!(warned, "{:?}", answer.warnings);
}

#[test]
fn under_a_load_the_duration_moves_what_is_in_flight() {
    let answer = recommend(&timed(), &Request { arrival_rate: Some(4.0), top: 500, ..request(None) }).unwrap();
    for c in answer.ranked.iter().filter(|c| c.batch_size > 2.0 * f64::from(c.data_parallel)) {
        // With the energy of its own batch known exactly, the interval of a batch alone would be this wide.
        let (own, all) = (reach(c.energy_j), reach(c.energy_per_request_j));
        assert!(all.0 < own.0 && all.1 > own.1, "{}: {all:?} is not wider than {own:?}", c.label());
    }
    // Around the clock the rent is known, whatever the duration.
    let prices = Prices { price_per_gpu_hour: Some(2.0), ..Prices::default() };
    let rent = Request { arrival_rate: Some(4.0), prices, objective: Objective::Cost, ..request(None) };
    assert_eq!(reach(recommend(&timed(), &rent).unwrap().ranked[0].cost_per_request.unwrap()), (1.0, 1.0));
}

#[test]
fn chances_with_rent_and_waiting_are_those_of_brute_force() {
    // Two laws whose only doubt is each configuration's own: energy 5 %, duration 16 %.
    let law_of = |target, sigma_log| {
        let mut law: Law = fixture::law(target);
        law.covariance.iter_mut().flatten().for_each(|c| *c = 0.0);
        (law.sigma_log, law.degrees_of_freedom) = (sigma_log, 1e6);
        law
    };
    let (energy, duration) = (law_of(Target::EnergyJ, 0.05), law_of(Target::DurationS, 0.16));
    // Moving with the energy, rented, waiting, share of time with work.
    let figures = [(0.2, 0.8, 0.0, 1.0), (0.5, 0.0, 0.55, 0.3), (0.3, 0.4, 0.32, 0.5)];
    let contender = |(moving, rented, waiting, busy_share): &(f64, f64, f64, f64)| Contender {
        law: &energy,
        law_index: 0,
        gradient: vec![0.0; 12],
        moving: *moving,
        fixed: 0.01,
        known_model: true,
        timed: Some(Timed {
            law: &duration,
            law_index: 1,
            gradient: vec![0.0; 12],
            moving_power: -0.5,
            rented: *rented,
            waiting: *waiting,
            busy_share: *busy_share,
        }),
    };
    let contenders: Vec<Contender<'_>> = figures.iter().map(contender).collect();
    let got = probabilities(&contenders, 3);
    let mut rng = ChaCha8Rng::seed_from_u64(78);
    let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    let (mut wins, draws) = ([0.0; 3], 100_000);
    for _ in 0..draws {
        let idle = 1.3_f64.powf(normal() / 1.645);
        let drawn = figures.map(|(moving, rented, waiting, busy)| {
            let (energy, slower) = ((0.05 * normal()).exp(), (0.16 * normal()).exp());
            let waiting = if busy < 1.0 { waiting * idle * (1.0 - busy * slower).max(0.0) / (1.0 - busy) } else { 0.0 };
            moving * energy / slower.sqrt() + rented * slower + waiting + 0.01
        });
        let best = (0..3).min_by(|i, j| drawn[*i].total_cmp(&drawn[*j])).unwrap();
        wins[best] += 1.0 / f64::from(draws);
    }
    for (got, want) in got.iter().zip(wins) {
        assert!((got - want).abs() < 0.045 && want > 0.05, "{got} is not {want}");
    }
}

#[test]
fn the_text_fits_into_eighty_columns() {
    let prices = Prices { price_per_kwh: Some(Rate::constant(0.2)), pue: 1.25, ..Prices::default() };
    let limits = vec!["mean_tpot_s=0.05".parse().unwrap(), "throughput_tok_s>=1".parse().unwrap()];
    for ask in [
        Request { limits, ..request(None) },
        Request { prices, objective: Objective::Cost, ..request(Some(32.0)) },
        Request { prices, arrival_rate: Some(0.31), ..request(None) },
        Request { max_gpus: 64, ..request(None) },
        traced(&[(100.0, 20.0), (9000.0, 400.0)]),
    ] {
        let text = recommend(&timed(), &ask).unwrap().table();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
    }
}

#[test]
fn what_to_measure_next_is_in_the_sweep() {
    let next = measure_next(&timed(), &request(None), 4).unwrap();
    assert_eq!(next.points.len(), 4);
    assert!(next.may_change && next.points[0].expected_saving_percent > 0.0);
    for p in &next.points {
        let degrees = format!("{} {} {}", p.tensor_parallel, p.pipeline_parallel, p.data_parallel);
        let key = format!("[\"{} {degrees} {}\"] = true", fixture::GPU, p.batch_size);
        assert!(next.sweep.contains(&key), "{key} is not in\n{}", next.sweep);
    }
    assert_eq!(next, measure_next(&timed(), &request(None), 4).unwrap());
    // It is measured as the rows were, or asks how.
    let engines = |simulated: bool, engine: Option<&str>| {
        let mut model = timed();
        for law in &mut model.laws {
            (law.simulated, law.engine) = (simulated, engine.map(str::to_owned));
        }
        model.scenarios[0].engine = engine.map(str::to_owned);
        measure_next(&model, &request(None), 4).unwrap().sweep
    };
    for (simulated, engine, expected) in [
        (true, Some("simulated"), "workload = el.simulated {"),
        (false, Some("vLLM"), "workload = el.vllm {"),
        (false, Some("llama.cpp"), "workload = el.llama_server {"),
        (false, Some("my engine"), "workload = el.fill_in { engine = \"my-engine\","),
        (false, None, "workload = el.fill_in { engine = \"unnamed\","),
    ] {
        let sweep = engines(simulated, engine);
        assert!(sweep.contains(expected), "{expected} is not in\n{sweep}");
    }
    // A law without doubt has nothing to learn.
    let mut sure = timed();
    for law in &mut sure.laws {
        law.sigma_log = 0.0;
        law.covariance.iter_mut().flatten().for_each(|c| *c = 0.0);
    }
    assert!(!measure_next(&sure, &request(None), 2).unwrap().may_change);
    let mut nameless = timed();
    nameless.scenarios[0].descriptors.nominal = true;
    nameless.scenarios[0].model = "own/model".to_owned();
    for law in &mut nameless.laws {
        law.model = Some("own/model".to_owned());
        law.fitted_models = vec!["own/model".to_owned()];
    }
    let error = measure_next(&nameless, &request(None), 2).unwrap_err().to_string();
    assert!(error.contains("no sweep can be written for own/model"), "{error}");
}

#[test]
fn under_a_rate_what_is_served_is_what_comes() {
    let ask = |limit: &str, rate| Request {
        arrival_rate: Some(rate),
        limits: vec![limit.parse().unwrap()],
        top: 500,
        ..request(None)
    };
    // 0.05 requests of 256 tokens are 12.8 tokens per second, whoever serves them.
    let answer = recommend(&timed(), &ask("throughput_tok_s=12", 0.05)).unwrap();
    assert!(answer.ranked.iter().all(|c| reach(c.throughput_tok_s.unwrap()) == (1.0, 1.0)));
    near(answer.ranked[0].throughput_tok_s.unwrap().value, 12.8, "throughput");
    let error = recommend(&timed(), &ask("throughput_tok_s=50", 0.05)).unwrap_err().to_string();
    assert!(error.contains("which are 12.8 tokens") && error.contains("--arrival-rate 0.1954"), "{error}");
    assert!(recommend(&timed(), &ask("throughput_tok_s=50", 0.1954)).is_ok());
}

#[test]
fn no_more_are_in_flight_than_may_be() {
    for most in [1.0, 3.0] {
        let ask = Request { arrival_rate: Some(0.02), top: 500, ..request(Some(most)) };
        let answer = recommend(&timed(), &ask).unwrap();
        for c in &answer.ranked {
            assert!(c.batch_size <= most && f64::from(c.data_parallel) <= most, "{}", c.label());
        }
        assert_eq!(answer.ranked.iter().map(|c| f64::from(c.data_parallel)).fold(0.0, f64::max), most);
    }
}

#[test]
fn where_everything_is_free_energy_decides() {
    let free = Some(Rate::constant(0.0));
    let by_energy = recommend(&timed(), &Request { objective: Objective::EnergyPerRequest, ..request(None) }).unwrap();
    for (objective, prices) in [
        (Objective::Cost, Prices { price_per_kwh: free, ..Prices::default() }),
        (Objective::Carbon, Prices { carbon_g_per_kwh: free, ..Prices::default() }),
    ] {
        let answer = recommend(&timed(), &Request { objective, prices, ..request(None) }).unwrap();
        assert_eq!(answer.objective, Objective::EnergyPerRequest);
        assert_eq!(answer.ranked[0].label(), by_energy.ranked[0].label());
        assert_eq!(answer.margin_percent, by_energy.margin_percent);
        let said = format!("{} is 0 whatever is chosen", objective.as_str());
        assert!(answer.warnings.iter().any(|w| w.contains(&said)), "{:?}", answer.warnings);
        assert!(!answer.table().contains("NaN"), "{answer}");
    }
}

#[test]
fn without_durations_the_price_of_a_request_is_told() {
    let prices = Prices {
        price_per_kwh: Some(Rate::constant(0.3)),
        carbon_g_per_kwh: Some(Rate::constant(400.0)),
        ..Prices::default()
    };
    let answer = recommend(&fixture::model(), &Request { prices, ..request(Some(32.0)) }).unwrap();
    let best = &answer.ranked[0];
    let (cost, carbon) = (best.cost_per_request.unwrap().value, best.carbon_per_request_g.unwrap().value);
    let expected = format!("a request: {} of money, {} g CO2 at the meter", figure(cost), figure(carbon));
    assert!(answer.table().contains(&expected), "{expected} is not in\n{answer}");
    assert!(answer.table().contains("at PUE 1, 0.3 of money per kWh, 400 g CO2 per kWh"), "{answer}");
}
