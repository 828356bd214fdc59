//! What should be deployed?
