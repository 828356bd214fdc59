//! `energylens laws`: the skeletons that come with the program.

use std::path::Path;

use clap::Args;
use energylens::law::export::{Language, export_skeleton};
use energylens::law::{Skeleton, formula_latex, formula_text};

use super::fit::skeleton_file;
use super::{Outcome, output};

/// List the built-in laws, or print one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  energylens laws energylens > my.toml\n  energylens laws energylens --as python")]
pub(crate) struct Arguments {
    /// Print this one as a skeleton file, to copy and change: a built-in law, or the path of a skeleton file.
    name: Option<String>,
    /// Print formulas in LaTeX.
    #[arg(long, conflicts_with_all = ["language", "json"])]
    latex: bool,
    /// Print NAME as code without numbers: python, rust, c, lua, sql, latex or json.
    #[arg(long = "as", value_name = "LANGUAGE", requires = "name", conflicts_with = "json")]
    language: Option<Language>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let mut skeletons = Skeleton::builtin();
    if let Some(name) = &a.name {
        let known: Vec<String> = skeletons.iter().map(|s| s.name.clone()).collect();
        skeletons.retain(|s| s.name == *name);
        let path = Path::new(name);
        // A name with a slash or an ending is meant as a path, so that what is wrong with the file is said.
        if skeletons.is_empty() && (path.is_file() || name.contains('/') || path.extension().is_some()) {
            skeletons.push(skeleton_file(path)?);
        }
        anyhow::ensure!(
            !skeletons.is_empty(),
            "law `{name}` is unknown; expected one of {}, or a skeleton file",
            known.join(", ")
        );
    }
    if let Some(language) = a.language {
        for skeleton in &skeletons {
            output::print_exactly(&export_skeleton(skeleton, language)?)?;
        }
        return Ok(Outcome::Done);
    }
    match skeletons.as_slice() {
        all if a.json => output::print_json(&all)?,
        [one] if a.name.is_some() && !a.latex => output::print_exactly(&one.to_toml()?)?,
        all => {
            for s in all {
                let formula = if a.latex { formula_latex(s) } else { formula_text(s) };
                output::print(&format!("{}: {} ({} parameters)\n{formula}\n", s.name, s.about, s.parameter_count()))?;
            }
        }
    }
    Ok(Outcome::Done)
}
