//! What regressions and trees see of a row: its columns, and those of the model card when models are pooled.

use crate::card::ModelCard;
use crate::dataset::Row;
use crate::law::{Case, Descriptors};
use crate::schema::Phase;

/// The row's configuration with its card; placeholders where the model is unknown. Prefill rows end at their first
/// token.
pub(super) fn case(row: &Row) -> Option<Case> {
    let card = ModelCard::builtin(&row.model);
    let descriptors = Descriptors::from_row(row, card.as_ref()).unwrap_or_else(|_| Descriptors::nominal());
    let case = descriptors.case(row, row.kv_capacity_tokens).ok()?;
    Some(if row.phase == Phase::Prefill { case.with_output(1.0) } else { case })
}

/// The same, refused where nothing is known of the model.
pub(super) fn carded_case(row: &Row) -> Option<Case> {
    let card = ModelCard::builtin(&row.model);
    Descriptors::from_row(row, card.as_ref()).ok()?;
    case(row)
}

/// The columns as numbers.
fn raw(row: &Row, pooled: bool) -> Option<Vec<f64>> {
    let case = case(row)?;
    let mut columns = vec![
        case.tensor_parallel,
        case.pipeline_parallel,
        case.data_parallel,
        case.batch_size,
        case.input_tokens,
        case.output_tokens,
        f64::from(u8::from(row.phase == Phase::Decode)) + 1.0,
    ];
    if pooled {
        columns.extend([
            case.active_params,
            case.weight_bytes,
            case.n_layers,
            case.hidden_size,
            case.kv_bytes_per_token + 1.0,
            case.num_experts + 1.0,
        ]);
    }
    columns.iter().all(|v| v.is_finite()).then_some(columns)
}

/// Columns of training rows with their target, standardised; columns that never vary are dropped.
pub(super) struct Columns {
    pooled: bool,
    log: bool,
    /// Index, mean and standard deviation of the columns kept.
    kept: Vec<(usize, f64, f64)>,
    /// One entry per training row.
    pub(super) x: Vec<Vec<f64>>,
    /// Energies, or their logs.
    pub(super) y: Vec<f64>,
}

impl Columns {
    pub(super) fn new(rows: &[Row], pooled: bool, log: bool) -> Self {
        let usable = rows.iter().filter_map(|r| Some((raw(r, pooled)?, r.energy_j.filter(|e| *e > 0.0)?)));
        let (raws, y): (Vec<Vec<f64>>, Vec<f64>) =
            usable.map(|(x, e)| (scaled(x, log), if log { e.ln() } else { e })).unzip();
        let width = raws.first().map_or(0, Vec::len);
        let n = raws.len() as f64;
        let kept = (0..width)
            .filter_map(|c| {
                let column = || raws.iter().filter_map(move |r| r.get(c));
                let mean = column().sum::<f64>() / n;
                let std = (column().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
                (std > 1e-9 * mean.abs().max(1e-9)).then_some((c, mean, std))
            })
            .collect();
        let mut columns = Self { pooled, log, kept, x: Vec::new(), y };
        columns.x = raws.iter().map(|r| columns.standardised(r)).collect();
        columns
    }

    fn standardised(&self, raw: &[f64]) -> Vec<f64> {
        self.kept.iter().filter_map(|(c, mean, std)| Some((raw.get(*c)? - mean) / std)).collect()
    }

    /// The columns of a row to be predicted.
    pub(super) fn of(&self, row: &Row) -> Option<Vec<f64>> {
        Some(self.standardised(&scaled(raw(row, self.pooled)?, self.log)))
    }

    /// From the scale of `y` to joules.
    pub(super) fn joules(&self, y: f64) -> f64 {
        if self.log { y.exp() } else { y }
    }

    /// Number of columns that vary.
    pub(super) fn width(&self) -> usize {
        self.kept.len()
    }

    /// Refuses fewer than `needed` rows, and rows that do not differ.
    pub(super) fn enough(&self, needed: usize) -> Result<(), String> {
        match self.y.len() {
            n if n < needed => Err(format!("needs {needed} rows to learn from, has {n}")),
            _ if self.width() == 0 => Err("no column varies among the rows to learn from".to_owned()),
            _ => Ok(()),
        }
    }
}

fn scaled(mut columns: Vec<f64>, log: bool) -> Vec<f64> {
    if log {
        columns.iter_mut().for_each(|v| *v = v.max(1e-9).ln());
    }
    columns
}
