//! What is known of a model and of a GPU before anything is measured?
//!
//! Start at [`ModelCard`] and [`GpuCard`]. Cards are facts (parameter counts, layer counts, data-sheet rates), never
//! fitted; the law uses them to carry coefficients from one model to another, the planner to tell what fits in memory.
//! Limit: a card describes the published architecture. What an engine makes of it (fused experts, padded vocabularies,
//! quantised layers left in bf16) is not on the card.

mod builtin;
pub mod gpu;
pub mod hugging_face;
pub mod model;

pub use gpu::{GpuCard, Vendor};
pub use hugging_face::HuggingFaceError;
pub use model::{Architecture, ModelCard};
