//! `energylens completions`: what a shell needs to complete our verbs, options and their values.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Outcome, output};

/// Print the completions of a shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:  energylens completions bash > ~/.local/share/bash-completion/completions/energylens\n           \
                  energylens completions zsh > \"${fpath[1]}/_energylens\"\n           \
                  energylens completions fish > ~/.config/fish/completions/energylens.fish\n\
                  scripts/install.sh and the Debian package put all three where the shells look."
)]
pub(crate) struct Arguments {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(a.shell, &mut super::Arguments::command(), "energylens", &mut text);
    output::print_exactly(&String::from_utf8_lossy(&text))?;
    Ok(Outcome::Done)
}
