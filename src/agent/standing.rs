//! How sampling threads stand with the scheduler: real-time priority and a processor of their own, where asked for.
//!
//! Never by default: a real-time thread goes before the workload that is being measured. It sleeps between polls and
//! never spins, so the workload loses what a poll takes and no more. What the system refuses is said, and recording
//! goes on without.

use std::num::NonZeroU64;

use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use thread_priority::{
    Error, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// By default the kernel may wake a thread 50 us late to spare a timer. Measured on a virtual machine at 1 kHz: half of
/// the wake-ups were later than 85 us with that and 35 us with this, at the same processor time (18 us per wake-up).
const TIMER_SLACK_NS: u64 = 1_000;

/// What the scheduler is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// `SCHED_FIFO` at this priority, 1 to 99; 1 goes before all ordinary threads and behind every other real-time one.
    pub realtime_priority: Option<u8>,
    /// The only processor to run on.
    pub pin_cpu: Option<usize>,
}

impl Standing {
    /// Asks for it on behalf of the calling thread; gives a sentence for each thing that was refused.
    pub(super) fn apply(self) -> Vec<String> {
        // Not worth a word if refused: polls are a little later then.
        let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
        let pinned = self.pin_cpu.and_then(|cpu| pin(cpu).err());
        let raised = self.realtime_priority.and_then(|priority| raise(priority).err());
        pinned.into_iter().chain(raised).collect()
    }
}

fn pin(cpu: usize) -> Result<(), String> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("cannot pin sampling to processor {cpu}: expected a number below {}", CpuSet::MAX_CPU));
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(|e| {
        format!(
            "cannot pin sampling to processor {cpu}: {e}; expected one of those that `taskset -p $$` lists for this \
             process; going on without"
        )
    })
}

fn raise(priority: u8) -> Result<(), String> {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let wanted = ThreadPriority::from_posix(thread_priority::ScheduleParams { sched_priority: i32::from(priority) });
    set_thread_priority_and_policy(thread_native_id(), wanted, policy).map_err(|e| {
        let cause = match e {
            Error::OS(code) => std::io::Error::from_raw_os_error(code).to_string(),
            other => other.to_string(),
        };
        format!(
            "cannot sample with real-time priority {priority}: {cause}; it needs CAP_SYS_NICE or a limit \
             (`LimitRTPRIO={priority}` in the systemd unit, `ulimit -r {priority}` in a shell); going on without"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_by_default() {
        assert_eq!(Standing::default().apply(), Vec::<String>::new());
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused_in_words() {
        let refused = std::thread::spawn(|| {
            [1_023, 100_000].map(|cpu| Standing { pin_cpu: Some(cpu), ..Standing::default() }.apply())
        });
        let [absent, absurd] = refused.join().unwrap();
        assert!(absent[0].starts_with("cannot pin sampling to processor 1023: "), "{absent:?}");
        assert_eq!(absurd, ["cannot pin sampling to processor 100000: expected a number below 1024"]);
    }

    #[test]
    fn a_priority_is_granted_or_refused_with_what_would_allow_it() {
        let outcome = std::thread::spawn(|| {
            let said = Standing { realtime_priority: Some(1), ..Standing::default() }.apply();
            (said, thread_priority::thread_schedule_policy().unwrap())
        });
        let (said, policy) = outcome.join().unwrap();
        match said.first() {
            None => assert_eq!(policy, ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo)),
            Some(refusal) => assert!(refusal.contains("CAP_SYS_NICE") && refusal.contains("LimitRTPRIO=1")),
        }
    }
}
