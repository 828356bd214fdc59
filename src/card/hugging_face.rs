//! Model cards from a Hugging Face style `config.json` on disk.

/// Why a `config.json` gave no card.
#[derive(Debug, thiserror::Error)]
pub enum HuggingFaceError {}
