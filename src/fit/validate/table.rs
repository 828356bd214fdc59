//! Validation as a table for people.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{CurvePoint, LearningCurve, NoiseSource, Validation};
use crate::fit::stats::Figures;
use crate::law::Target;

/// One of the figures.
type Figure = fn(&Figures) -> Option<f64>;

/// A ratio as per cent with one digit, or a dash.
fn percent(ratio: Option<f64>) -> Cell {
    let text = match ratio {
        Some(r) if r.abs() < 10.0 => format!("{:.1} %", 100.0 * r),
        Some(r) => format!("{:.0} %", 100.0 * r),
        None => "-".to_owned(),
    };
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["predictor", "Top-1", "± noise", "regret", "pairs", "MAPE", "90 % holds"];
        let mut printed = table(header.map(str::to_owned).to_vec());
        for score in &self.scores {
            let Some(figures) = &score.figures else { continue };
            let columns: [Figure; 6] =
                [|f| f.top1, |f| f.top1_tolerant, |f| f.regret, |f| f.pairwise, |f| f.mape, |f| f.coverage];
            let mark = if score.sees_held_out_latency { " *" } else { "" };
            let mut cells = vec![Cell::new(format!("{}{mark}", score.predictor))];
            cells.extend(columns.iter().map(|column| percent(column(figures))));
            printed.add_row(cells);
        }
        if self.simulated {
            writeln!(f, "SIMULATED rows")?;
        }
        let training = match (self.training_rows_min, self.training_rows_max) {
            (low, high) if low == high => format!("{low}"),
            (low, high) => format!("{low} to {high}"),
        };
        let laws = if self.scopes == 1 { "one law".to_owned() } else { format!("{} laws", self.scopes) };
        if self.target != Target::EnergyJ {
            writeln!(f, "predicted: {}", self.target)?;
        }
        writeln!(f, "held out: {}, seed {}", self.scheme, self.seed)?;
        writeln!(
            f,
            "learnt from {training} rows ({laws}), judged on {} rows; {} groups offer a choice",
            self.rows, self.groups
        )?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        writeln!(f, "{printed}")?;
        for score in &self.scores {
            match (&score.figures, &score.note) {
                (None, Some(note)) => writeln!(f, "absent: {}: {note}", score.predictor)?,
                (Some(_), Some(note)) => writeln!(f, "{}: {note}", score.predictor)?,
                _ => {}
            }
        }
        if self.scores.iter().any(|s| s.sees_held_out_latency && s.figures.is_some()) {
            writeln!(f, "* chooses by latencies measured on the held-out rows themselves; nothing else sees them")?;
        }
        if let Some(share) = self.optima_differ {
            writeln!(f, "latency and energy optima differ in {:.1} % of the groups", 100.0 * share)?;
        }
        let source = match self.noise_source {
            NoiseSource::Given => "given",
            NoiseSource::Repeats => "from exact repeats",
            NoiseSource::Default => "assumed, no repeats to take it from",
        };
        write!(f, "repeat noise {:.1} % ({source})", 100.0 * self.noise)
    }
}

impl fmt::Display for LearningCurve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures: [(&str, Figure); 3] = [("Top-1", |f| f.top1), ("regret", |f| f.regret), ("MAPE", |f| f.mape)];
        let sizes: Vec<String> = self.points.iter().map(CurvePoint::learnt).collect();
        for (i, (name, figure)) in figures.into_iter().enumerate() {
            let header = std::iter::once(format!("{name} from")).chain(sizes.iter().cloned());
            let mut printed = table(header.collect());
            for predictor in &self.predictors {
                let cells: Vec<Cell> =
                    self.points.iter().map(|point| percent(point.figures.get(predictor).and_then(figure))).collect();
                printed.add_row(std::iter::once(Cell::new(predictor)).chain(cells));
            }
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{printed}")?;
        }
        for note in &self.notes {
            write!(f, "\n{note}")?;
        }
        Ok(())
    }
}
