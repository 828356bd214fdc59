//! What signals mean: INT and TERM stop, HUP has a daemon reopen its files and stops everybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::flag;

/// A flag that SIGINT, SIGTERM and SIGHUP set.
pub(crate) fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = stop_on_int_and_term()?;
    // Started by nohup it shall outlive the terminal, whose end is what HUP tells.
    if !is_hangup_ignored() {
        flag::register(SIGHUP, stop.clone()).context("cannot listen for SIGHUP")?;
    }
    Ok(stop)
}

/// A flag that SIGINT and SIGTERM set, and one that SIGHUP sets.
pub(crate) fn stop_and_reopen_on_signal() -> anyhow::Result<(Arc<AtomicBool>, Arc<AtomicBool>)> {
    let stop = stop_on_int_and_term()?;
    let reopen = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, reopen.clone()).context("cannot listen for SIGHUP")?;
    Ok((stop, reopen))
}

/// One crate for each signal: two that handle the same one replace each other's handler or call it.
fn stop_on_int_and_term() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    ctrlc::set_handler(move || set.store(true, Ordering::Release)).context("cannot listen for SIGINT")?;
    flag::register(SIGTERM, stop.clone()).context("cannot listen for SIGTERM")?;
    Ok(stop)
}

/// Whether whoever started this process has it ignore SIGHUP.
fn is_hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_in_ignored(&status, SIGHUP))
}

/// Whether the line `SigIgn:` of a process's status, a hexadecimal mask whose lowest bit is signal 1, holds `signal`.
fn is_in_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_says_which_signals_are_ignored() {
        // As the kernel printed it for a process under nohup that also ignores SIGPIPE (13): bits 0 and 12.
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_in_ignored(status, SIGHUP) && is_in_ignored(status, 13));
        assert!(!is_in_ignored(status, SIGTERM) && !is_in_ignored("", SIGHUP) && !is_in_ignored("SigIgn: x", SIGHUP));
    }
}
