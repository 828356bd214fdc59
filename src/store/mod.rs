//! What is on disk?
