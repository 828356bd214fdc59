//! `energylens predict`: energy with its interval, for given configurations.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use energylens::dataset::{self, Configurations};
use energylens::law::{Model, Prediction, Target};
use serde_json::{Map, Value, json};

use super::output::short;
use super::{Outcome, output};

/// Predict the energy of configurations, with 90 % intervals.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens predict model.json configs.csv --csv > predicted.csv")]
pub(crate) struct Arguments {
    /// The model file that `fit` wrote.
    model: PathBuf,
    /// Configurations: the columns of measured rows, without energy_j.
    configurations: PathBuf,
    /// Predict another quantity: energy_j, duration_s, mean_ttft_s or mean_tpot_s.
    #[arg(long, default_value = "energy_j", value_parser = parse_target)]
    target: Target,
    /// Write CSV: the columns as they came, then the prediction and its interval.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Write JSON: an array of objects.
    #[arg(long)]
    json: bool,
}

pub(crate) fn parse_target(text: &str) -> Result<Target, String> {
    Target::ALL.iter().copied().find(|t| t.as_str() == text).ok_or_else(|| {
        let known: Vec<_> = Target::ALL.iter().map(|t| t.as_str()).collect();
        format!("target `{text}` is unknown; expected one of {}", known.join(", "))
    })
}

/// Names of the appended columns: the unit stands in the predicted column and again in the interval's.
fn columns(target: Target) -> [String; 3] {
    let unit = if target == Target::EnergyJ { "j" } else { "s" };
    [format!("predicted_{target}"), format!("low_{unit}"), format!("high_{unit}")]
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let model = Model::load(&a.model)?;
    let mut configurations = dataset::load_configurations(&a.configurations)?;
    remove_columns(&mut configurations, &columns(a.target));
    let answers: Vec<Result<Prediction, String>> = configurations
        .rows
        .iter()
        .map(|row| match row {
            Ok(row) => model.predict(a.target, row).map_err(|e| e.to_string()),
            Err(refused) => Err(match &refused.column {
                Some(column) => format!("{column}: {}", refused.reason),
                None => refused.reason.clone(),
            }),
        })
        .collect();
    for note in &configurations.notes {
        output::say(&format!("note: {note}"));
    }
    output::note_expert_parallel(configurations.rows.iter().filter_map(|row| row.as_ref().ok()));
    let (mut rejected, mut outside) = (Vec::new(), Vec::new());
    for (answer, row) in answers.iter().zip(1..) {
        match answer {
            Err(reason) => rejected.push(format!("rejected: row {row}: {reason}")),
            Ok(p) if !p.outside.is_empty() => {
                outside.push(format!("warning: row {row} lies outside what was measured: {}", p.outside.join(", ")));
            }
            Ok(_) => {}
        }
    }
    if answers.iter().flatten().any(|p| p.simulated) {
        eprintln!("note: the law behind these figures was fitted to simulated rows");
    }
    output::remarks(&rejected);
    output::remarks(&outside);
    anyhow::ensure!(
        answers.iter().any(Result::is_ok),
        "none of the {} configurations in {} can be predicted, for the reasons above",
        answers.len(),
        a.configurations.display()
    );
    if a.json {
        output::print_json(&as_json(&configurations, &answers, a.target))?;
    } else if a.csv {
        output::print_exactly(&as_csv(&configurations, &answers, a.target)?)?;
    } else {
        output::print(&as_table(&configurations, &answers, a.target))?;
    }
    Ok(if answers.iter().all(Result::is_ok) { Outcome::Done } else { Outcome::SomeRejected })
}

/// Drops what an earlier prediction appended: its columns are replaced, not doubled.
fn remove_columns(c: &mut Configurations, names: &[String]) {
    let kept: Vec<bool> = c.headers.iter().map(|header| !names.contains(header)).collect();
    for fields in std::iter::once(&mut c.headers).chain(&mut c.records) {
        let mut places = kept.iter();
        fields.retain(|_| places.next().copied().unwrap_or(true));
    }
}

fn as_csv(c: &Configurations, answers: &[Result<Prediction, String>], target: Target) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    writer.write_record(c.headers.iter().cloned().chain(columns(target)))?;
    for (record, answer) in c.records.iter().zip(answers) {
        let figures = match answer {
            Ok(p) => [p.value, p.low, p.high].map(|v| v.to_string()),
            Err(_) => Default::default(),
        };
        // A short record is filled up, so that the figures stand under their headings.
        let fields = (0..c.headers.len()).map(|i| record.get(i).cloned().unwrap_or_default());
        writer.write_record(fields.chain(figures))?;
    }
    String::from_utf8(writer.into_inner().context("cannot write CSV")?).context("the configurations are not UTF-8")
}

fn as_json(c: &Configurations, answers: &[Result<Prediction, String>], target: Target) -> Value {
    let number = |text: &str| {
        let parsed = text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
        text.trim().parse::<u64>().ok().map(Value::from).or(parsed.map(Value::Number))
    };
    let object = |(record, answer): (&Vec<String>, &Result<Prediction, String>)| {
        let fields = c.headers.iter().cloned().zip(record.iter().map(|v| match v.as_str() {
            "" => Value::Null,
            text => number(text).unwrap_or_else(|| Value::from(text)),
        }));
        let mut object: Map<String, Value> = fields.collect();
        match answer {
            Ok(p) => {
                object.extend(columns(target).into_iter().zip([p.value, p.low, p.high].map(|v| json!(v))));
                object.insert("outside".to_owned(), json!(p.outside));
                object.insert("simulated".to_owned(), json!(p.simulated));
            }
            Err(reason) => {
                object.extend(columns(target).into_iter().map(|name| (name, Value::Null)));
                object.insert("error".to_owned(), json!(reason));
            }
        }
        Value::Object(object)
    };
    Value::Array(c.records.iter().zip(answers).map(object).collect())
}

fn as_table(c: &Configurations, answers: &[Result<Prediction, String>], target: Target) -> String {
    let headers = ["model", "tp", "pp", "dp", "batch", "in", "out", target.as_str(), "90 % interval", ""];
    let mut table = output::table(&headers, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for (row, answer) in c.rows.iter().zip(answers) {
        let (figure, interval, label) = match answer {
            Ok(p) => {
                let label = if p.simulated { "[simulated]" } else { "" };
                (short(p.value), format!("{} to {}", short(p.low), short(p.high)), label)
            }
            Err(_) => ("-".to_owned(), "rejected".to_owned(), ""),
        };
        match row {
            Ok(r) => table.add_row([
                r.model.clone(),
                r.tensor_parallel.to_string(),
                r.pipeline_parallel.to_string(),
                r.data_parallel.to_string(),
                short(r.batch_size),
                r.input_tokens.map_or_else(|| "-".to_owned(), short),
                short(r.output_tokens),
                figure,
                interval,
                label.to_owned(),
            ]),
            Err(refused) => table.add_row([format!("row {}", refused.line), "-".to_owned()]),
        };
    }
    table.trim_fmt()
}
