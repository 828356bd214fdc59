//! How much a script may do before it is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Instructions for evaluating the script, and again for each call of `where`.
const INSTRUCTIONS: u64 = 50_000_000;
/// Time of the processor for the same, s. Instructions take about a second of it, on slow machines three.
const LONGEST_S: u64 = if cfg!(test) { 3 } else { 10 };
/// The hook comes this often: one instruction may join two texts of megabytes.
pub(super) const HOOK_EVERY: u32 = 1_000;
/// Library calls of fewer steps than this do not look at the clock.
const LONG_CALL: u64 = 1_000;
/// No instant yet: the clock is looked at only once something takes time.
const NOT_YET: u64 = u64::MAX;

/// What a script has used since it was last given a whole budget.
#[derive(Clone)]
pub(in crate::sweep::script) struct Budget(Arc<Used>);

struct Used {
    instructions: AtomicU64,
    /// Of this thread's processor time, ns, when it was first looked at.
    since_ns: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Used { instructions: AtomicU64::new(0), since_ns: AtomicU64::new(NOT_YET) }))
    }
}

impl Budget {
    pub(in crate::sweep::script) fn renew(&self) {
        self.0.instructions.store(0, Ordering::Relaxed);
        self.0.since_ns.store(NOT_YET, Ordering::Relaxed);
    }

    /// Counts the instructions since the hook came last, or says which limit they pass.
    pub(super) fn instructions(&self) -> Result<(), String> {
        self.count(u64::from(HOOK_EVERY))?;
        self.look_at_the_clock()
    }

    /// Counts what a library function is about to do, in steps that take about as long as an instruction.
    pub(super) fn spend(&self, steps: u64) -> Result<(), String> {
        self.count(steps)?;
        if steps < LONG_CALL { Ok(()) } else { self.look_at_the_clock() }
    }

    fn count(&self, steps: u64) -> Result<(), String> {
        let used = self.0.instructions.fetch_add(steps.min(INSTRUCTIONS), Ordering::Relaxed).saturating_add(steps);
        if used <= INSTRUCTIONS {
            return Ok(());
        }
        Err(format!("the script takes more than {} million instructions", INSTRUCTIONS / 1_000_000))
    }

    fn look_at_the_clock(&self) -> Result<(), String> {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        let now_ns = (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64);
        let since_ns = self.0.since_ns.load(Ordering::Relaxed);
        if since_ns == NOT_YET {
            self.0.since_ns.store(now_ns, Ordering::Relaxed);
        } else if now_ns.saturating_sub(since_ns) > LONGEST_S * 1_000_000_000 {
            return Err(format!("the script takes more than {LONGEST_S} s of processor time"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_library_functions_count_like_instructions() {
        let budget = Budget::default();
        assert_eq!(budget.spend(INSTRUCTIONS - 1_000), Ok(()));
        assert_eq!(budget.instructions(), Ok(()));
        assert!(budget.spend(1).is_err_and(|why| why.contains("50 million instructions")));
        budget.renew();
        assert_eq!(budget.spend(1), Ok(()));
        assert!(budget.spend(u64::MAX).is_err());
        assert!(budget.spend(u64::MAX).is_err(), "the count does not wrap");
    }
}
