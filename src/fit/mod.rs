//! Which law explains the data, and how well?
