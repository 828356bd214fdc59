//! What is the closed form?
