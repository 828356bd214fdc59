//! `energylens export`: the fitted law as a function of another language.

use std::path::PathBuf;

use clap::Args;
use energylens::law::export::{Language, Selection, export};
use energylens::law::{Model, Target};

use super::destination::Destination;
use super::{Outcome, output};

/// Write the fitted law as a self-contained function.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  energylens export model.json --to python -o law.py
  python3 -c \"import law; print(law.energy_j(tensor_parallel=4, batch_size=32, input_tokens=1024, output_tokens=256))\"
  energylens export model.json --to sql --target energy_j")]
pub(crate) struct Arguments {
    /// The model file that `fit` wrote.
    model: PathBuf,
    /// The language: python, rust, c, lua, sql, latex or json.
    #[arg(long = "to", value_name = "LANGUAGE")]
    language: Language,
    /// The file to write; stdout if left out.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Which scenario, where the model file has several: part of `MODEL / GPU / ENGINE / PRECISION`.
    #[arg(long)]
    scenario: Option<String>,
    /// Whose card to put in, for a law that holds for several models; all known cards if left out.
    #[arg(long, value_name = "MODEL")]
    card: Option<String>,
    /// Write only these quantities; all that the scenario has laws of if left out.
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',', value_parser = super::predict::parse_target)]
    targets: Vec<Target>,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let destination = a.output.as_ref().map(|path| Destination::of(path, &[&a.model])).transpose()?;
    let model = Model::load(&a.model)?;
    let selection = Selection { scenario: a.scenario.clone(), model: a.card.clone(), targets: a.targets.clone() };
    let text = export(&model, &selection, a.language)?;
    match (&a.output, &destination) {
        (Some(path), Some(destination)) => {
            destination.write(&text)?;
            output::say(&format!("written to {}", path.display()));
        }
        _ => output::print_exactly(&text)?,
    }
    Ok(Outcome::Done)
}
