//! The `energylens` command: parse, dispatch, print the error chain, set the exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::parse();
    match cli::run(arguments) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            cli::print_error(&error);
            cli::exit_code(&error)
        }
    }
}
