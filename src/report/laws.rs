//! What the page says of each law: its accuracy, formula, parameters and verdicts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::formula::{TypesetTerm, typeset};
use super::page::Table;
use crate::law::{HeldOut, Law, SurvivalPart, SurvivalTable, SurvivalTerm, Target, formula_text, legend};
use crate::recommend::figure;

/// What figures call the law's own predictions.
pub(super) const LAW: &str = "energylens";

#[derive(Debug, Serialize)]
pub(super) struct Accuracy {
    scope: String,
    scheme: String,
    table: Table,
}

#[derive(Debug, Serialize)]
pub(super) struct LawText {
    title: String,
    facts: String,
    formula: Vec<TypesetTerm>,
    formula_text: String,
    legend: Vec<(&'static str, &'static str)>,
    parameters: Table,
    verdicts: Vec<VerdictText>,
    domain: Table,
    /// Shown at once rather than on demand.
    open: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct VerdictText {
    text: String,
    good: bool,
}

impl Accuracy {
    pub(super) fn of(law: &Law, held_out: &HeldOut) -> Self {
        let known: BTreeSet<&String> = held_out.figures.values().flat_map(BTreeMap::keys).collect();
        // Shares are printed in %, whatever else there is as it stands.
        let shares = [
            ("mape", "MAPE"),
            ("median_ape", "median error"),
            ("top1", "Top-1"),
            ("top1_tolerant", "Top-1 within repeat noise"),
            ("regret", "energy regret"),
            ("pairwise", "pairs ordered right"),
            ("coverage", "inside 90 % interval"),
        ];
        let mut columns: Vec<(String, String, bool)> = shares
            .iter()
            .filter(|(key, _)| known.iter().any(|k| k == key))
            .map(|(key, title)| ((*key).to_owned(), (*title).to_owned(), true))
            .collect();
        let others = known.iter().filter(|k| shares.iter().all(|(key, _)| key != *k));
        columns.extend(others.map(|k| ((*k).clone(), (*k).clone(), false)));
        let mut head = vec!["predictor".to_owned()];
        head.extend(columns.iter().map(|(_, title, _)| title.clone()));
        // Each kind of split by itself, the law before what it is compared with.
        let mut predictors: Vec<_> = held_out.figures.iter().collect();
        predictors.sort_by_key(|(name, _)| {
            let (predictor, split) = name.split_once(", ").unwrap_or((name, ""));
            (split, predictor != law.skeleton.name && predictor != LAW, predictor)
        });
        let rows = predictors.into_iter().map(|(predictor, figures)| {
            let mut row = vec![predictor.clone()];
            row.extend(columns.iter().map(|(key, _, share)| match figures.get(key) {
                Some(value) if *share => format!("{:.1} %", 100.0 * value),
                Some(value) => figure(*value),
                None => "–".to_owned(),
            }));
            row
        });
        Self {
            scope: format!("{} of {}", law.skeleton.target, law.scope()),
            scheme: format!(
                "{}; at least {} training rows, {} groups with a choice, seed {}",
                held_out.scheme, held_out.training_rows, held_out.groups, held_out.seed
            ),
            table: Table { head, rows: rows.collect(), words_last: false },
        }
    }
}

/// Where the structure of a discovered law survives: its error part by part, and the share of energy of each term.
pub(super) fn survival(found: &SurvivalTable) -> [Table; 2] {
    let percent = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{:.1} %", 100.0 * v));
    let part = |p: &SurvivalPart| {
        let own = format!("{} ({})", percent(Some(p.own_mape)), p.parameters);
        vec![p.name.clone(), p.rows.to_string(), own, percent(p.common_mape), percent(p.reference_mape)]
    };
    let head = ["part", "rows", "own structure (parameters)", "common structure", "energylens law"];
    let errors = Table {
        head: head.map(str::to_owned).to_vec(),
        rows: found.parts.iter().map(part).collect(),
        words_last: false,
    };
    let mut head = vec!["share of energy".to_owned()];
    head.extend(found.parts.iter().map(|p| p.name.clone()));
    head.extend([format!("in {} resamples", found.resamples), "commonest shape".to_owned()]);
    let term = |t: &SurvivalTerm| {
        let mut row = vec![t.role.clone()];
        row.extend(t.shares.iter().map(|s| percent(*s)));
        row.extend([percent(t.in_resamples), t.product.clone()]);
        row
    };
    [errors, Table { head, rows: found.terms.iter().map(term).collect(), words_last: true }]
}

impl LawText {
    pub(super) fn of(law: &Law) -> Self {
        let term = |name: &str| law.skeleton.terms.iter().find(|t| t.name == name).map(|t| t.title.clone());
        let exponent = |name: &str| law.skeleton.exponents.iter().find(|e| e.name == name).map(|e| e.title.clone());
        let plus_minus = |e: Option<f64>| e.map_or("–".to_owned(), |e| format!("± {}", significant(e)));
        let mut rows: Vec<Vec<String>> = law
            .coefficients
            .iter()
            .map(|c| {
                vec![
                    c.name.clone(),
                    term(&c.name).unwrap_or_default(),
                    significant(c.value),
                    plus_minus(c.std_error),
                    format!("{} to {}", significant(c.low), c.high.map_or("?".to_owned(), significant)),
                    c.unit.clone(),
                ]
            })
            .collect();
        rows.extend(law.exponents.iter().map(|e| {
            vec![
                e.name.clone(),
                exponent(&e.name).unwrap_or_default(),
                significant(e.value),
                plus_minus(e.std_error),
                format!("{} to {}", significant(e.low), significant(e.high)),
                "exponent".to_owned(),
            ]
        }));
        let head = ["", "stands for", "value", "standard error", "95 % interval", "unit"].map(str::to_owned);
        let verdict = |v: &crate::law::Verdict| VerdictText { text: v.to_string(), good: v.is_good() };
        Self {
            title: format!("{} of {}", law.skeleton.target, law.scope()),
            facts: format!(
                "{} parameters, {} rows; residuals of ±{:.1} % (one standard deviation); mean absolute error on the \
                 fitted rows {:.1} %, which is no accuracy figure.",
                law.skeleton.parameter_count(),
                law.rows,
                100.0 * law.sigma_log,
                100.0 * law.training_mape
            ),
            formula: typeset(&law.skeleton),
            formula_text: formula_text(&law.skeleton),
            legend: legend(&law.skeleton),
            parameters: Table { head: head.to_vec(), rows, words_last: true },
            verdicts: law.verdicts.iter().map(verdict).collect(),
            domain: Table {
                head: ["symbol", "from", "to"].map(str::to_owned).to_vec(),
                rows: law
                    .domain
                    .iter()
                    .map(|(symbol, d)| vec![symbol.clone(), figure(d.low), figure(d.high)])
                    .collect(),
                words_last: false,
            },
            open: law.skeleton.target == Target::EnergyJ,
        }
    }
}

/// Three significant digits, with an exponent where a coefficient needs one.
fn significant(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) { figure(value) } else { format!("{value:.2e}") }
}
