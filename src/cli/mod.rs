//! One file per verb: each turns arguments into calls of the library and results into text or JSON.
//!
//! Results go to stdout, progress and remarks to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 done but some rows or
//! runs were rejected.

mod agent;
mod asked;
mod cards;
mod compact;
mod completions;
mod demo;
mod destination;
mod discover;
mod doctor;
mod export;
mod fit;
mod hints;
mod import;
mod keeping;
mod laws;
mod man;
mod mark;
mod output;
mod plan;
mod predict;
mod recommend;
mod record;
mod recorded;
mod report;
mod run;
mod service;
mod signals;
mod sources;
mod sql;
mod status;
mod submit;
mod tables;
mod task;
mod top;
mod validate;
mod validation_page;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// What came of a verb that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was done.
    Done,
    /// Done, but rows or runs were left out; stderr says which.
    SomeRejected,
    /// The measured command's own exit status.
    Status(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::SomeRejected => Self::from(3),
            Outcome::Status(code) => Self::from(code),
        }
    }
}

/// Measures what LLM inference costs, and finds the configuration that costs least.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Start with:  energylens demo\nExit codes:  0 done, 1 failed, 2 usage, 3 done but some rows or runs were rejected"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Arguments),
    Doctor(doctor::Arguments),
    Agent(agent::Arguments),
    Record(record::Arguments),
    Mark(mark::Arguments),
    Top(top::Arguments),
    Plan(plan::Arguments),
    Run(run::Arguments),
    Submit(submit::Arguments),
    Status(status::Arguments),
    #[command(hide = true)]
    Task(task::Arguments),
    Import(import::Arguments),
    Fit(fit::Arguments),
    Discover(discover::Arguments),
    Predict(predict::Arguments),
    Validate(validate::Arguments),
    Recommend(recommend::Arguments),
    Export(export::Arguments),
    Report(report::Arguments),
    Laws(laws::Arguments),
    Cards(cards::Arguments),
    Tables(tables::Arguments),
    Sql(sql::Arguments),
    Compact(compact::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// What was typed, or the end of the program with a word on what should have been.
pub(crate) fn parse() -> Arguments {
    let matches = command().get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
}

/// The command as it is parsed: what begins like a negative number is the value of the option before it, which then says
/// what it expects; taken for an option itself, it would be answered with how to pass it on.
fn command() -> clap::Command {
    let with_numbers = |verb: clap::Command| {
        verb.mut_args(|arg| {
            let takes_value = arg.get_long().is_some() && arg.get_action().takes_values();
            if takes_value { arg.allow_negative_numbers(true) } else { arg }
        })
    };
    Arguments::command().mut_subcommands(with_numbers)
}

/// What was asked cannot be understood: the exit code of a mistyped option, wherever it was found.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code of a failure.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Carries out one verb.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    match arguments.verb {
        Verb::Demo(a) => demo::run(&a),
        Verb::Doctor(a) => doctor::run(&a),
        Verb::Agent(a) => agent::run(&a),
        Verb::Record(a) => record::run(&a),
        Verb::Mark(a) => mark::run(&a),
        Verb::Top(a) => top::run(&a),
        Verb::Plan(a) => plan::run(&a),
        Verb::Run(a) => run::run(a),
        Verb::Submit(a) => submit::run(&a),
        Verb::Status(a) => status::run(&a),
        Verb::Task(a) => task::run(a),
        Verb::Import(a) => import::run(&a),
        Verb::Fit(a) => fit::run(&a),
        Verb::Discover(a) => discover::run(&a),
        Verb::Predict(a) => predict::run(&a),
        Verb::Validate(a) => validate::run(&a),
        Verb::Recommend(a) => recommend::run(&a),
        Verb::Export(a) => export::run(&a),
        Verb::Report(a) => report::run(&a),
        Verb::Laws(a) => laws::run(&a),
        Verb::Cards(a) => cards::run(&a),
        Verb::Tables(a) => tables::run(&a),
        Verb::Sql(a) => sql::run(&a),
        Verb::Compact(a) => compact::run(&a),
        Verb::Completions(a) => completions::run(&a),
        Verb::Man(a) => man::run(&a),
    }
}

/// A message whose further lines are indented, as our own are: a name from a file that has several begins none like
/// `warning:` or `hint:`.
fn indented(text: &str) -> String {
    let mut lines = text.trim_end().lines();
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + if line.starts_with("  ") { "\n" } else { "\n    " } + line)
}

/// The error and its causes, one a line, then hints.
pub(crate) fn print_error(error: &anyhow::Error) {
    let mut said = error.to_string();
    output::say(&format!("error: {}", indented(&said)));
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some errors quote their cause.
        if !said.contains(cause.trim()) {
            output::say(&format!("  caused by: {}", indented(&cause)));
            said = cause;
        }
    }
    if let Some(hint) = hints::hint(error) {
        output::say(&format!("hint: {hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_number_is_answered_by_the_option_that_it_was_given_to() {
        let mut tried = 0;
        for verb in command().get_subcommands() {
            for option in verb.get_arguments().filter(|a| a.get_action().takes_values() && !a.is_require_equals_set()) {
                let Some(long) = option.get_long() else { continue };
                tried += 1;
                let line = ["energylens".to_owned(), verb.get_name().to_owned(), format!("--{long}"), "-1".to_owned()];
                let Err(said) = command().try_get_matches_from(line) else { continue };
                let said = said.to_string();
                assert!(!said.contains("unexpected argument '-1'"), "{} --{long}: {said}", verb.get_name());
            }
        }
        assert!(tried > 50, "{tried} options");
    }
}
