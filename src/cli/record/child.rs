//! The measured command: started, waited for, and told of the signals that were meant for it.

use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Told;
use anyhow::Context;
use energylens::clock::{Clock, SystemClock};
use energylens::dataset::interval::Window;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How soon a signal is passed on.
const SIGNAL_LATENCY: Duration = Duration::from_millis(50);

/// Signals that end a measurement early. They are caught, so that what was measured is still printed.
pub(super) struct Signals {
    pending: [(Signal, Arc<AtomicBool>); 3],
    seen: AtomicBool,
    /// Ctrl-C and a hangup reach every process of a terminal: passed on as well, the command would get them twice.
    is_terminal: bool,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let flag = |signal: Signal, number: i32| -> anyhow::Result<(Signal, Arc<AtomicBool>)> {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(number, flag.clone()).context("cannot listen for signals")?;
            Ok((signal, flag))
        };
        let is_terminal = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        let pending = [flag(Signal::INT, SIGINT)?, flag(Signal::HUP, SIGHUP)?, flag(Signal::TERM, SIGTERM)?];
        Ok(Self { pending, seen: AtomicBool::new(false), is_terminal })
    }

    /// Whether one came, now or earlier.
    pub(super) fn came(&self) -> bool {
        self.seen.load(Ordering::Acquire) || self.pending.iter().any(|(_, flag)| flag.load(Ordering::Acquire))
    }

    /// Those that came since the last call and that the command has not got by itself.
    fn take(&self) -> impl Iterator<Item = Signal> {
        self.pending.iter().filter_map(|(signal, flag)| {
            let came = flag.swap(false, Ordering::AcqRel);
            if came {
                self.seen.store(true, Ordering::Release);
            }
            (came && (!self.is_terminal || *signal == Signal::TERM)).then_some(*signal)
        })
    }
}

/// One run of the command.
pub(super) struct Ran {
    pub(super) window: Window,
    pub(super) status: ExitStatus,
}

impl Ran {
    /// The exit status as shells report it.
    pub(super) fn code(&self) -> u8 {
        let code = self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0));
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

/// Runs the command to its end; stdin, stdout and stderr are its own.
pub(super) fn run(told: &Told<'_>, signals: &Signals) -> io::Result<Ran> {
    let t_begin_ns = SystemClock.now();
    let mut child = Command::new(told.program).args(told.arguments).envs(told.environment.iter().cloned()).spawn()?;
    // A descriptor, not a number: a number may be another process's by the time that a signal is passed on.
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let forwarder = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for signal in signals.take() {
                    if let Some(handle) = &handle {
                        // It may have ended meanwhile; then there is nobody to tell.
                        let _ = pidfd_send_signal(handle, signal);
                    }
                }
                std::thread::park_timeout(SIGNAL_LATENCY);
            }
        });
        let status = child.wait();
        let t_end_ns = SystemClock.now();
        done.store(true, Ordering::Release);
        forwarder.thread().unpark();
        Ok(Ran { window: Window { t_begin_ns, t_end_ns }, status: status? })
    })
}
