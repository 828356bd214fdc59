//! energylens: from the energy counters of a node to a law that picks the configuration of a deployment.
//!
//! The rooms, in the order in which data passes. Each answers one question; which room may use which is kept by
//! `tests/architecture.rs`.
//!
//! | room | question | start at |
//! |---|---|---|
//! | [`units`], [`clock`], [`schema`] | In which units, on which time, under which names? | [`schema::Table`] |
//! | [`mod@file`] | How is a file written so that nobody sees half of it? | [`file::replace`] |
//! | [`card`] | What is known of a model and of a GPU before anything is measured? | [`card::ModelCard`] |
//! | [`source`] | Where do readings come from? | [`source::CounterSource`] |
//! | [`store`] | What is on disk? | [`store::Campaign`] |
//! | [`agent`] | Who polls, and at what cost? | [`agent::Sampler`] |
//! | [`sweep`] | What shall be run? | [`sweep::Plan`] |
//! | [`slurm`] | Where shall it run? | [`slurm::prepare`] |
//! | [`dataset`] | What did each run cost? | [`dataset::Dataset`] |
//! | [`law`] | What is the closed form? | [`law::Skeleton`], [`law::Model`] |
//! | [`fit`] | Which law explains the data, and how well? | [`fit::fit_model`], [`fit::validate()`] |
//! | [`choose`] | Which points does an adaptive sweep measure next? | [`choose::decide`] |
//! | [`mod@recommend`] | What should be deployed? | [`recommend::recommend`] |
//! | [`report`] | How does one see why? | [`report::write_html`] |

pub mod agent;
pub mod card;
pub mod choose;
pub mod clock;
pub mod dataset;
pub mod file;
pub mod fit;
pub mod law;
pub mod recommend;
pub mod report;
pub mod schema;
pub mod slurm;
pub mod source;
pub mod store;
pub mod sweep;
pub mod units;
