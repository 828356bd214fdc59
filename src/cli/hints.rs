//! What to do next, where the error itself cannot know it: the commands that would have helped.

use std::io::ErrorKind;

use energylens::{card, dataset, fit, law, recommend, store, sweep};

/// The advice for the first error of the chain that has one.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| of_campaigns(cause).or_else(|| of_others(cause).map(str::to_owned)))
}

fn of_campaigns(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    match cause.downcast_ref()? {
        store::Error::NotACampaign { near: Some(near), .. } => {
            Some(format!("{} is one", super::output::one_line(&near.display().to_string())))
        }
        store::Error::NotACampaign { path, .. } if store::is_lake(path) => {
            Some("`energylens sql` reads a lake as it is".to_owned())
        }
        store::Error::NotACampaign { .. } => {
            Some("a campaign is a directory that `energylens run`, `agent` or `record -o` wrote".to_owned())
        }
        store::Error::Occupied { .. } => Some("name a new directory with -o".to_owned()),
        _ => None,
    }
}

fn of_others(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    of_rows(cause).or_else(|| of_models(cause)).or_else(|| of_sweeps(cause))
}

fn of_rows(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use dataset::Error;
    if let Some(fit::Error::NothingToHoldOut { .. }) = cause.downcast_ref() {
        return Some(
            "measure more workloads, or divide the rows another way: --scheme workloads=2, batches, models, hardware",
        );
    }
    if cause.is::<card::HuggingFaceError>() {
        return Some(
            "a card is read from the config.json beside a model's weights; `energylens cards` lists the built-in ones",
        );
    }
    if let Some(fit::Error::TooFewRows { .. }) = cause.downcast_ref() {
        return Some(
            "some fifty rows over parallelism, batch and lengths make a law; `energylens plan SWEEP.lua` lays them out",
        );
    }
    match cause.downcast_ref()? {
        Error::Read { source, .. } if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
            Some("rows are a Parquet file, a CSV file, or a campaign directory that `energylens run` wrote")
        }
        Error::NoPhases { .. } => Some("`energylens run SWEEP.lua -o DIRECTORY` measures a campaign and reduces it"),
        Error::MissingColumn { .. } | Error::MisspeltColumn { .. } | Error::NoGoodRow { .. } => {
            Some("`energylens tables` lists the columns (table phases), with unit and meaning")
        }
        Error::NoRows { .. } => Some("is the file still being written?"),
        _ => None,
    }
}

fn of_models(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match cause.downcast_ref() {
        Some(law::Error::NotAModel { .. } | law::Error::Io { verb: "read", .. }) => {
            return Some("a model file is what `energylens fit ROWS -o model.json` writes");
        }
        Some(law::Error::Skeleton(_)) => return skeleton(),
        _ => {}
    }
    if cause.is::<law::SkeletonError>() {
        return skeleton();
    }
    match cause.downcast_ref()? {
        recommend::Error::WhichModel { .. } => Some("add model=NAME to the workload"),
        recommend::Error::NoLaw { .. } => {
            Some("`energylens fit ROWS --pool models` carries a law over to models that were not measured")
        }
        recommend::Error::NothingFeasible { .. } => {
            Some("loosen the limits, allow more GPUs, or rank outside the measured range with --allow-outside")
        }
        _ => None,
    }
}

fn skeleton() -> Option<&'static str> {
    Some("`energylens laws energylens > my.toml` prints a skeleton to start from")
}

fn of_sweeps(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let error = match cause.downcast_ref()? {
        sweep::Error::At { what, .. } => &**what,
        error => error,
    };
    match error {
        sweep::Error::Io { verb: "read", .. } => Some("a sweep is a Lua script; copy one from scripts/sweeps"),
        // A message that begins with another file's name: what was given is no script.
        sweep::Error::Script(text) if !text.contains(".lua:") => {
            Some("a sweep is a Lua script; copy one from scripts/sweeps")
        }
        sweep::Error::TooFewFeasible { .. } => Some("ask for fewer points, widen the axes or loosen `where`"),
        sweep::Error::Foreign { .. } => Some("restore the file from a copy, or name a new campaign directory with -o"),
        _ => None,
    }
}
