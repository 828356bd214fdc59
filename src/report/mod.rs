//! How does one see why?
