//! Texts as servers print them.
