//! `energylens man`: the manual, one page for the program and one per verb, made from the same words as `--help`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use energylens::schema::nearest;

use super::destination::Destination;
use super::{Outcome, output};

/// Print a page of the manual, or write all of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:  energylens man fit | man -l -\n           energylens man -o share/man/man1")]
pub(crate) struct Arguments {
    /// The verb whose page is printed; the page of the program if left out.
    verb: Option<String>,
    /// Write every page into this directory, as energylens.1, energylens-fit.1 and so on.
    #[arg(short, long, value_name = "DIR", conflicts_with = "verb")]
    output: Option<PathBuf>,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let pages = pages()?;
    if let Some(dir) = &a.output {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for (name, text) in &pages {
            let path = dir.join(format!("{name}.1"));
            Destination::of(&path, &[])?.write(&String::from_utf8_lossy(text))?;
        }
        output::print(&format!("{} pages written to {}", pages.len(), dir.display()))?;
        return Ok(Outcome::Done);
    }
    let wanted = a.verb.as_ref().map_or_else(|| "energylens".to_owned(), |verb| format!("energylens-{verb}"));
    let Some((_, text)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let asked = a.verb.as_deref().unwrap_or_default();
        let verbs = pages.iter().filter_map(|(name, _)| name.strip_prefix("energylens-"));
        let near = nearest(asked, verbs).map(|verb| format!("did you mean `{verb}`? ")).unwrap_or_default();
        anyhow::bail!("there is no page of `{asked}`; {near}`energylens --help` lists the verbs");
    };
    output::print_exactly(&String::from_utf8_lossy(text))?;
    Ok(Outcome::Done)
}

/// Every page: its name without the section, and its text.
fn pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut program = super::Arguments::command().disable_help_subcommand(true);
    // Hands version and options down to the verbs.
    program.build();
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    std::iter::once(&program).chain(verbs).map(page).collect()
}

fn page(command: &Command) -> anyhow::Result<(String, Vec<u8>)> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut text = Vec::new();
    let man = Man::new(command.clone()).title(name.clone()).manual("energylens");
    man.render(&mut text).with_context(|| format!("cannot make the page of {name}"))?;
    Ok((name, text))
}
