//! The answer for people, in 80 columns.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::answer::{Candidate, Recommendation, figure, percent};
use super::limit::{Limit, Objective, Quantity};
use super::rank::FRONT;

/// Columns of a terminal that nobody has widened.
const WIDTH: usize = 80;

/// Rows of the rest that the table shows.
const TABLE_OUTSIDE: usize = 3;

/// Stands for a space at which no line is broken.
const GLUE: char = '\u{a0}';

impl Recommendation {
    /// The answer: one sentence, the ranking, what rules of thumb would have cost, the warnings.
    pub fn table(&self) -> String {
        let Some(best) = self.ranked.first() else { return "no configuration\n".to_owned() };
        let mut text = String::new();
        let mut say = |line: &str| text.push_str(&wrapped(line));
        if self.simulated {
            say("SIMULATED: the law behind this was fitted to simulated rows");
        }
        say(&self.glued(&self.sentence(best)));
        // Whoever reads no further must have read this.
        let guesses = Self::range_warnings(best);
        guesses.iter().for_each(|guess| say(&format!("warning: {guess}")));
        self.day(best).iter().for_each(|line| say(line));
        text.push('\n');
        text.push_str(&self.ranking(&self.ranked));
        let mut say = |line: &str| text.push_str(&wrapped(line));
        if self.ranked.iter().any(|c| c.pareto == Some(true)) {
            say(&format!(
                "* on the front: none needs less and has less {}",
                self.latency.map_or("latency", Quantity::as_str)
            ));
            self.further_front().iter().for_each(|line| say(line));
        }
        self.ranked.iter().for_each(|c| notes(c).iter().for_each(|note| say(&format!("{}: {note}", c.label()))));
        if let Some(margin) = self.margin_percent {
            say(&format!("margin to the second: {}", percent(margin)));
        }
        for alternative in &self.alternatives {
            say(&alternative.to_string());
        }
        say(&format!(
            "{} of {} configurations are feasible; probabilities from {} draws over {} contenders, seed {}",
            self.feasible, self.candidates, self.draws, self.contenders, self.seed
        ));
        for exclusion in &self.excluded {
            say(&format!("left out: {exclusion}"));
        }
        if let Some(note) = self.overlap_note() {
            say(note);
        }
        for platform in &self.not_judged {
            say(&format!("left out: {platform}"));
        }
        if !self.outside.is_empty() {
            text.push_str("\noutside the measured range (guesses, not ranked):\n");
            let shown: Vec<_> = self.outside.iter().take(TABLE_OUTSIDE).cloned().collect();
            text.push_str(&self.ranking(&shown));
            for c in &shown {
                text.push_str(&wrapped(&format!("{}: {}", c.label(), c.outside_notes().join("; "))));
            }
        }
        for warning in self.warnings.iter().filter(|w| !guesses.contains(w)) {
            text.push_str(&wrapped(&format!("warning: {warning}")));
        }
        text
    }

    /// How much of the front lies below what is listed.
    fn further_front(&self) -> Option<String> {
        let listed = self.ranked.iter().filter(|c| c.pareto == Some(true)).count();
        let more = self.pareto.len().checked_sub(listed).filter(|more| *more > 0)?;
        let at_least = if self.pareto.len() < FRONT { "" } else { "at least " };
        let (s, are) = if more == 1 { ("", "is") } else { ("s", "are") };
        let costs = if at_least.is_empty() { "a larger --top lists them, JSON has all" } else { "JSON has the first" };
        Some(format!("{at_least}{more} further configuration{s} of the front {are} not listed here; {costs}"))
    }

    /// The sentence with what belongs together kept on one line.
    fn glued(&self, sentence: &str) -> String {
        let glue = |part: &str| part.replace(' ', &GLUE.to_string());
        let limits = self.limits.iter().map(Limit::to_string).fold(sentence.to_owned(), |text, limit| {
            text.replace(&format!(" and {limit}"), &format!(" {}", glue(&format!("and {limit}"))))
                .replace(&limit, &glue(&limit))
        });
        limits.replace("under ", &format!("under{GLUE}")).replace(": TP ", &format!(":{GLUE}TP{GLUE}"))
    }

    /// A day of the first, or one request where it is not known how many it serves.
    fn day(&self, best: &Candidate) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(requests), Some(day)) = (self.requests_per_day, best.per_day) {
            let load = if self.arrival_rate.is_some() { "requests come in" } else { "requests at full speed" };
            let mut parts = vec![format!("{} kWh", figure(day.energy_kwh.value))];
            parts.extend(day.cost.map(|c| format!("{} of money", figure(c.value))));
            parts.extend(day.carbon_kg.map(|c| format!("{} kg CO2", figure(c.value))));
            lines.push(format!("a day, {} {load}: {} at the meter", figure(requests), parts.join(", ")));
        } else {
            let cost = best.cost_per_request.map(|c| format!("{} of money", figure(c.value)));
            let carbon = best.carbon_per_request_g.map(|c| format!("{} g CO2", figure(c.value)));
            let parts: Vec<String> = cost.into_iter().chain(carbon).collect();
            if parts.is_empty() {
                return lines;
            }
            lines.push(format!("a request: {} at the meter", parts.join(", ")));
        }
        let mut rates = vec![format!("PUE {}", figure(self.prices.pue))];
        rates.extend(self.prices.price_per_kwh.map(|r| format!("{r} of money per kWh")));
        rates.extend(self.prices.price_per_gpu_hour.map(|r| format!("{} of money per GPU hour", figure(r))));
        rates.extend(self.prices.carbon_g_per_kwh.map(|r| format!("{r} g CO2 per kWh")));
        if rates.len() > 1 || self.prices.pue > 1.0 {
            lines.push(format!("at {}", rates.join(", ")));
        }
        lines
    }

    /// The rows, with as many times as there is room for; those that are limited come first.
    fn ranking(&self, candidates: &[Candidate]) -> String {
        let times = [(Quantity::MeanTpotS, "TPOT s"), (Quantity::MeanTtftS, "TTFT s"), (Quantity::MeanPowerW, "W")];
        let is_known = |q: &Quantity| candidates.iter().any(|c| c.estimate(*q).is_some());
        let mut times: Vec<_> = times.into_iter().filter(|(q, _)| is_known(q)).collect();
        times.sort_by_key(|(q, _)| !self.limits.iter().any(|l| l.quantity == *q));
        // The name of a GPU is wider than all else: it stands behind the row where the terminal is wide enough.
        let names: Vec<String> = candidates.iter().map(|c| one_line(&c.told_apart_by().join(", "))).collect();
        let behind = names.iter().map(|name| name.chars().count() + 2).max().unwrap_or(0);
        let behind = if self.varies.gpu_model || self.varies.is_nothing() { 0 } else { behind };
        let mut lines = self.rows(candidates, &times);
        while times.pop().is_some() && lines.iter().any(|l| l.chars().count() + behind > WIDTH) {
            lines = self.rows(candidates, &times);
        }
        if !self.varies.is_nothing() {
            let widest = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
            // Names speak for themselves where their title would be what makes the table too wide.
            let title = Some(self.varies.titles().join(", "));
            let title = title.filter(|title| self.varies.gpu_model || widest + 2 + title.len() <= WIDTH);
            for (line, name) in lines.iter_mut().zip(std::iter::once(title.unwrap_or_default()).chain(names)) {
                let gap = widest - line.chars().count();
                line.push_str(format!("{:gap$}  {name}", "").trim_end());
            }
        }
        lines.join("\n") + "\n"
    }

    fn rows(&self, candidates: &[Candidate], times: &[(Quantity, &'static str)]) -> Vec<String> {
        let leading = match self.objective {
            Objective::EnergyPerToken => "J/token",
            Objective::EnergyPerRequest => "J/request",
            Objective::EnergyPerDay => "kWh/day",
            Objective::Cost => "cost",
            Objective::Carbon => "g CO2",
        };
        let mut head = vec!["", "TP", "PP", "DP", "GPUs", "batch", leading, "90 % interval", "extra", "P(best)"];
        head.extend(times.iter().map(|(_, title)| *title));
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
        for c in candidates {
            let mut row = vec![if c.pareto == Some(true) { "*".to_owned() } else { String::new() }];
            row.extend([c.tensor_parallel, c.pipeline_parallel, c.data_parallel, c.num_gpus].map(|v| v.to_string()));
            row.push(figure(c.batch_size));
            let e = c.estimate(self.objective.into());
            row.push(e.map_or("-".to_owned(), |e| figure(e.value)));
            row.push(e.map_or("-".to_owned(), |e| format!("{} to {}", figure(e.low), figure(e.high))));
            row.push(percent(c.extra_percent));
            row.push(c.probability_best.map_or("-".to_owned(), |p| format!("{:.0} %", 100.0 * p)));
            row.extend(times.iter().map(|(q, _)| c.estimate(*q).map_or("-".to_owned(), |e| figure(e.value))));
            table.add_row(row);
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((u16::from(i > 0), 0)).set_cell_alignment(CellAlignment::Right);
        }
        table.to_string().lines().map(|l| l.trim_end().to_owned()).collect()
    }
}

fn notes(candidate: &Candidate) -> Vec<String> {
    let mut notes: Vec<String> = candidate.replicas_note().into_iter().collect();
    let close = candidate.limits.iter().filter(|l| !l.holds_with_margin);
    notes.extend(close.map(|l| format!("{} may reach {}", l.limit.quantity, figure(l.worst))));
    notes.extend(candidate.outside_notes());
    if notes.is_empty() { notes } else { vec![notes.join("; ")] }
}

/// Names come from files: a line break in one would forge a line of ours.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Lines as wide as a terminal.
fn wrapped(line: &str) -> String {
    super::wrap::wrapped("", &one_line(line), WIDTH).replace(GLUE, " ")
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table())
    }
}
