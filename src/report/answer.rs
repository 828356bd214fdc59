//! The recommendation on the page: what to choose, what it takes in a day, what rules of thumb would waste, what to measure.

use serde::Serialize;

use super::page::{Fact, Table, fact, without_empty_last};
use crate::recommend::{
    Alternative, Candidate, NextMeasurements, Objective, Prices, Quantity, Recommendation, Varies, Waste, figure,
};

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    sentence: String,
    /// The load, the prices and a day at them.
    facts: Vec<Fact>,
    table: Table,
    rules: Table,
    rules_caption: String,
    next: Option<Next>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Next {
    heading: &'static str,
    table: Table,
}

impl Answer {
    pub(super) fn of(answer: &Recommendation, next: Option<&NextMeasurements>) -> Self {
        let mut notes = vec![format!(
            "{} of {} configurations are feasible. Intervals hold 90 %; probabilities come from {} draws over {} \
             contenders (seed {}).",
            answer.feasible, answer.candidates, answer.draws, answer.contenders, answer.seed
        )];
        notes.extend(answer.excluded.iter().map(|e| format!("Left out: {e}.")));
        notes.extend(answer.overlap_note().map(str::to_owned));
        notes.extend(answer.not_judged.iter().map(|platform| format!("Left out: {platform}.")));
        if answer.prices.know_cost() || answer.prices.carbon_g_per_kwh.is_some() {
            notes.push("Money and carbon dioxide in the table are those of one request.".to_owned());
        }
        let per_day = answer.alternatives.iter().any(|a| a.waste_per_day.is_some());
        Self {
            sentence: answer.ranked.first().map(|best| answer.sentence(best)).unwrap_or_default(),
            facts: facts(answer),
            table: ranking(answer),
            rules: rules(answer),
            rules_caption: match per_day {
                true => "What rules of thumb would pick, and what they waste in a day".to_owned(),
                false => "What rules of thumb would pick".to_owned(),
            },
            next: next.map(|next| Next { heading: next.heading(), table: measurements(next) }),
            notes,
            warnings: answer.warnings.clone(),
        }
    }
}

/// The load, what things cost, and a day of the first.
fn facts(answer: &Recommendation) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(rate) = answer.arrival_rate {
        facts.push(fact("requests coming in", format!("{} per second", figure(rate))));
    }
    if let Some(busy) = answer.ranked.first().and_then(|best| best.busy_share) {
        facts.push(fact("time with work", format!("{} %", figure(100.0 * busy))));
    }
    let Prices { price_per_kwh, carbon_g_per_kwh, price_per_gpu_hour, pue } = &answer.prices;
    facts.extend(price_per_kwh.map(|r| fact("price of a kWh", r.to_string())));
    facts.extend(price_per_gpu_hour.map(|r| fact("price of a GPU hour", figure(r))));
    facts.extend(carbon_g_per_kwh.map(|r| fact("carbon in a kWh", format!("{r} g CO2"))));
    if *pue > 1.0 {
        facts.push(fact("power at the meter over that of the GPUs (PUE)", figure(*pue)));
    }
    let (Some(requests), Some(day)) = (answer.requests_per_day, answer.ranked.first().and_then(|best| best.per_day))
    else {
        return facts;
    };
    let load = if answer.arrival_rate.is_some() { "" } else { ", at full speed" };
    facts.push(fact("requests a day", format!("{}{load}", figure(requests))));
    let with_ends = |e: crate::recommend::Estimate, unit: &str| {
        format!("{}{unit} ({} to {})", figure(e.value), figure(e.low), figure(e.high))
    };
    facts.push(fact("energy a day, at the meter", with_ends(day.energy_kwh, " kWh")));
    facts.extend(day.cost.map(|cost| fact("money a day", with_ends(cost, ""))));
    facts.extend(day.carbon_kg.map(|carbon| fact("carbon a day", with_ends(carbon, " kg CO2"))));
    facts
}

/// What the column of a quantity is called.
fn title(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::EnergyPerTokenJ => "J per token",
        Quantity::EnergyPerRequestJ => "J per request",
        Quantity::EnergyPerDayKwh => "kWh per day",
        Quantity::CostPerRequest => "money",
        Quantity::CarbonPerRequestG => "g CO2",
        Quantity::ThroughputTokS => "tokens/s",
        Quantity::MeanTtftS => "TTFT, s",
        Quantity::MeanTpotS => "TPOT, s",
        Quantity::DurationS => "batch, s",
        Quantity::MeanPowerW => "power, W",
        other => other.as_str(),
    }
}

/// Figures beside the one that is made small: with more the table is wider than the page.
const FIGURES: usize = 4;

/// The figures of the ranking: what is made small, then what is limited, then the others as far as there is room.
fn columns(answer: &Recommendation, room: usize) -> Vec<Quantity> {
    let mut wanted: Vec<Quantity> = answer.limits.iter().map(|l| l.quantity).collect();
    // The degrees, the GPUs and the batch have columns of their own.
    wanted.retain(|q| title(*q) != q.as_str());
    wanted.extend([
        Quantity::EnergyPerTokenJ,
        Quantity::MeanTpotS,
        Quantity::MeanTtftS,
        Quantity::CostPerRequest,
        Quantity::CarbonPerRequestG,
        Quantity::DurationS,
        Quantity::MeanPowerW,
    ]);
    // Energies differ by a factor that is the same for all.
    let is_energy =
        |q: Quantity| matches!(q, Quantity::EnergyPerTokenJ | Quantity::EnergyPerRequestJ | Quantity::EnergyPerDayKwh);
    let leading = Quantity::from(answer.objective);
    let known = |q: &Quantity| answer.ranked.iter().any(|c| c.estimate(*q).is_some());
    let mut columns = vec![leading];
    for quantity in wanted {
        let is_told = columns.contains(&quantity) || (is_energy(leading) && is_energy(quantity));
        if !is_told && known(&quantity) && columns.len() <= room {
            columns.push(quantity);
        }
    }
    columns
}

/// The configurations, best first.
fn ranking(answer: &Recommendation) -> Table {
    let is_energy =
        matches!(answer.objective, Objective::EnergyPerToken | Objective::EnergyPerRequest | Objective::EnergyPerDay);
    let varies = answer.varies;
    // The name of a GPU is as wide as two figures, that of an engine or a precision as one, an interval of money as one
    // more. One figure always finds room.
    let names = [2 * usize::from(varies.gpu_model), varies.engine.into(), varies.precision.into(), (!is_energy).into()];
    let quantities = columns(answer, FIGURES.saturating_sub(names.iter().sum()).max(1));
    let mut head: Vec<String> = varies.titles().into_iter().map(str::to_owned).collect();
    head.extend(["TP", "PP", "DP", "GPUs", "batch"].map(str::to_owned));
    for (i, quantity) in quantities.iter().enumerate() {
        head.push(title(*quantity).to_owned());
        // What decides stands together.
        head.extend((i == 0).then_some(["P(best)", "extra"]).into_iter().flatten().map(str::to_owned));
    }
    head.push("notes".to_owned());
    let row = |c: &Candidate| {
        let mut cells: Vec<String> = c.told_apart_by().into_iter().map(str::to_owned).collect();
        cells.extend([c.tensor_parallel, c.pipeline_parallel, c.data_parallel, c.num_gpus].map(|v| v.to_string()));
        cells.push(figure(c.batch_size));
        for (i, quantity) in quantities.iter().enumerate() {
            cells.push(match c.estimate(*quantity) {
                Some(e) if i == 0 => format!("{} ({} to {})", figure(e.value), figure(e.low), figure(e.high)),
                Some(e) => figure(e.value),
                None => "–".to_owned(),
            });
            if i == 0 {
                cells.push(c.probability_best.map_or("–".to_owned(), |p| format!("{:.0} %", 100.0 * p)));
                cells.push(format!("{:+.1} %", c.extra_percent));
            }
        }
        let mut notes: Vec<String> = c.replicas_note().into_iter().collect();
        notes.extend(c.outside_notes());
        let close = c.limits.iter().filter(|l| !l.holds_with_margin);
        notes.extend(close.map(|l| format!("{} may reach {}", l.limit.quantity, figure(l.worst))));
        cells.push(notes.join("; "));
        cells
    };
    without_empty_last(Table { head, rows: answer.ranked.iter().map(row).collect(), words_last: true })
}

/// One figure of a waste.
type OfWaste = fn(&Waste) -> Option<f64>;

/// What rules of thumb would pick, and what each wastes.
fn rules(answer: &Recommendation) -> Table {
    let of_day = |get: OfWaste| {
        let any = answer.alternatives.iter().filter_map(|a| a.waste_per_day.as_ref()).any(|w| get(w).is_some());
        any.then_some(get)
    };
    let day: [(&str, Option<OfWaste>); 4] = [
        ("J a day", of_day(|w| Some(w.energy_j))),
        ("kWh a day", of_day(|w| Some(w.energy_kwh))),
        ("money a day", of_day(|w| w.cost)),
        ("kg CO2 a day", of_day(|w| w.carbon_kg)),
    ];
    let mut head = vec!["rule".to_owned()];
    head.extend(answer.varies.titles().into_iter().map(str::to_owned));
    head.extend(["TP", "PP", "DP", "GPUs", "batch", "extra energy"].map(str::to_owned));
    head.extend(day.iter().filter(|(_, get)| get.is_some()).map(|(name, _)| (*name).to_owned()));
    head.push("notes".to_owned());
    let row = |a: &Alternative| {
        let pick = &a.pick;
        let mut cells = vec![a.rule.to_owned()];
        cells.extend(pick.told_apart_by().into_iter().map(str::to_owned));
        let degrees = [pick.tensor_parallel, pick.pipeline_parallel, pick.data_parallel, pick.num_gpus];
        cells.extend(degrees.map(|v| v.to_string()));
        cells.extend([figure(pick.batch_size), format!("{:+.1} %", pick.extra_energy_percent)]);
        cells.extend(day.iter().filter_map(|(_, get)| *get).map(|get| {
            let more = a.waste_per_day.as_ref().and_then(get);
            more.map_or("–".to_owned(), |more| format!("{}{}", if more > 0.0 { "+" } else { "" }, figure(more)))
        }));
        cells.push(if a.same_as_best { "the same choice".to_owned() } else { String::new() });
        cells
    };
    without_empty_last(Table { head, rows: answer.alternatives.iter().map(row).collect(), words_last: true })
}

fn measurements(next: &NextMeasurements) -> Table {
    let named = Varies { gpu_model: true, ..next.varies };
    let mut head: Vec<String> = named.titles().into_iter().map(str::to_owned).collect();
    head.extend(["TP", "PP", "DP", "batch", "known to", "expected saving"].map(str::to_owned));
    let rows = next.points.iter().map(|p| {
        let names = named.names(&p.gpu_model, p.engine.as_deref(), p.precision.as_deref());
        let mut cells: Vec<String> = names.into_iter().map(str::to_owned).collect();
        cells.extend([p.tensor_parallel, p.pipeline_parallel, p.data_parallel].map(|v| v.to_string()));
        cells.push(p.batch_size.to_string());
        cells.push(format!("±{:.1} %", p.uncertainty_percent));
        cells.push(format!("{:.2} %", p.expected_saving_percent));
        cells
    });
    Table { head, rows: rows.collect(), words_last: false }
}
