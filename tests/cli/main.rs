//! The command line as a script or a newcomer meets it: every verb's happy path, the contracts that scripts rely on, and
//! the messages for what people get wrong.

#[path = "../support/mod.rs"]
mod support;

mod accuracy;
mod campaigns;
mod contracts;
mod counters;
mod decisions;
mod foreign;
mod golden;
mod hostile;
mod keeping;
mod manual;
mod merging;
mod mistakes;
mod real;
mod service;
mod slurm;
