//! Decoders on bytes that nobody vouches for.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a step of a decoder, and makes an error of a panic.
///
/// The Arrow and Parquet decoders check most of what they read, not all: one changed byte in a buffer's length panics
/// in arrow-buffer 60 (found by `damaged_files_give_rows_or_errors_but_no_panic`). Whoever gets an error from here
/// must not use the decoder again: it may be in any state.
pub(crate) fn contained<T, E>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, Box<dyn Error + Send + Sync>>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            Err(text.unwrap_or("the decoder broke off").into())
        }
    }
}
