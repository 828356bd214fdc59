//! Sources through their real code paths: Intel's driver by a stub of its loader, sysfs by trees laid out as the kernel
//! does, recordings by recordings.

mod support;

#[path = "drivers/level_zero.rs"]
mod level_zero;
#[path = "drivers/node.rs"]
mod node;
#[path = "drivers/replay.rs"]
mod replay;
