//! Bindings to librocm_smi64, opened at run time.
pub mod bindings;
