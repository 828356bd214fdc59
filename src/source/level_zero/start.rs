//! Getting Sysman going: two ways that exclude each other.
//!
//! - `zesInit`, in loaders since 2023, needs nothing. It answers only if `ZES_ENABLE_SYSMAN` is not set.
//! - `zeInit` with `ZES_ENABLE_SYSMAN=1` in the environment, before the first `zeInit` of the process. Handles of the
//!   core interface then serve as Sysman handles.
//!
//! Some drivers have a `zesInit` that answers "not supported"; then the second way is tried.

use super::Error;
use super::abi::{self, Api, Handle, SUCCESS};

/// The switch of the older way.
const SWITCH: &str = "ZES_ENABLE_SYSMAN";

/// All devices of all drivers, the Sysman handle of each.
pub(super) fn devices(api: &Api) -> Result<Vec<Handle>, Error> {
    let is_switched_on = std::env::var_os(SWITCH).is_some_and(|value| value != "0");
    if !is_switched_on
        && let (Some(init), Some(drivers), Some(devices)) = (api.sysman_init, api.sysman_drivers, api.sysman_devices)
    {
        // SAFETY: no flags are defined; the function may be called at any time and more than once.
        let code = unsafe { init(0) };
        match code {
            SUCCESS => return list(drivers, devices),
            // No driver at all: the older way would find none either.
            abi::UNINITIALIZED => return Err(Error::NoDriver { code: abi::describe(code) }),
            _ => {}
        }
    }
    if !is_switched_on {
        switch_on()?;
    }
    // SAFETY: as above; 0 asks for drivers of every kind.
    let code = unsafe { (api.core_init)(0) };
    if !is_switched_on {
        switch_off();
    }
    match code {
        SUCCESS => list(api.core_drivers, api.core_devices),
        abi::INSUFFICIENT_PERMISSIONS => Err(Error::NoPermission),
        code => Err(Error::NoDriver { code: abi::describe(code) }),
    }
}

fn list(
    drivers: unsafe extern "C" fn(*mut u32, *mut Handle) -> abi::Code,
    devices: abi::Children,
) -> Result<Vec<Handle>, Error> {
    let failed = |code| match code {
        abi::INSUFFICIENT_PERMISSIONS => Error::NoPermission,
        code => Error::NoDriver { code: abi::describe(code) },
    };
    let mut handles = Vec::new();
    for driver in abi::roots(drivers).map_err(failed)? {
        // A driver for something else (an NPU) may refuse to list; the others still count.
        handles.extend(abi::children(devices, driver).unwrap_or_default());
    }
    if handles.is_empty() { Err(Error::NoDevices) } else { Ok(handles) }
}

/// Sets the switch, which is sound only while nobody else can be reading the environment.
fn switch_on() -> Result<(), Error> {
    if !is_alone() {
        return Err(Error::SwitchNeeded);
    }
    // SAFETY: this thread is the only one of the process, as was just counted, so that no other reads or writes the
    // environment meanwhile.
    unsafe { std::env::set_var(SWITCH, "1") };
    Ok(())
}

/// Takes the switch back, so that a command that is measured starts in the environment of its user. A driver that has
/// started threads of its own makes that unsound; then it stays.
fn switch_off() {
    if is_alone() {
        // SAFETY: as above.
        unsafe { std::env::remove_var(SWITCH) };
    }
}

/// Whether this is the only thread of the process.
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}
