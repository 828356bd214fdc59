//! Whole campaigns of known joules.
