//! The `energylens` command: parse, dispatch, print the error chain, set the exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            cli::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
