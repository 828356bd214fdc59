pub mod energy;
pub mod identifiers;
pub mod memory;
pub mod power;
