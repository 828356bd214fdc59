//! How many marks a user may send: a burst, then a steady rate. Bounded in memory, however many users there are.

use std::collections::HashMap;

use crate::units::ns_to_s;

/// Marks that may come at once.
const BURST: f64 = 10_000.0;
/// Marks per second after that.
const PER_SECOND: f64 = 1_000.0;
/// Users that are kept apart. Beyond, newcomers share one allowance: user namespaces give one person 65,536 of them.
const MAX_USERS: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Allowance {
    marks: f64,
    as_of_ns: i64,
}

impl Allowance {
    fn full(now_ns: i64) -> Self {
        Self { marks: BURST, as_of_ns: now_ns }
    }

    fn refill(&mut self, now_ns: i64) {
        let passed_s = ns_to_s(now_ns.saturating_sub(self.as_of_ns).max(0));
        self.marks = (self.marks + PER_SECOND * passed_s).min(BURST);
        self.as_of_ns = now_ns;
    }

    fn spend(&mut self, now_ns: i64) -> bool {
        self.refill(now_ns);
        let has_one = self.marks >= 1.0;
        if has_one {
            self.marks -= 1.0;
        }
        has_one
    }
}

/// The allowances of all users.
#[derive(Debug)]
pub(super) struct RateLimit {
    users: HashMap<u32, Allowance>,
    others: Allowance,
}

impl RateLimit {
    pub(super) fn new(now_ns: i64) -> Self {
        Self { users: HashMap::new(), others: Allowance::full(now_ns) }
    }

    /// Whether `uid` may send one more now.
    pub(super) fn allows(&mut self, uid: u32, now_ns: i64) -> bool {
        if !self.users.contains_key(&uid) && self.users.len() >= MAX_USERS {
            // Who has been silent long enough to have a full allowance again is as good as new.
            self.users.retain(|_, allowance| {
                allowance.refill(now_ns);
                allowance.marks < BURST
            });
            if self.users.len() >= MAX_USERS {
                return self.others.spend(now_ns);
            }
        }
        self.users.entry(uid).or_insert_with(|| Allowance::full(now_ns)).spend(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_then_a_steady_rate_and_users_do_not_pay_for_each_other() {
        let mut limit = RateLimit::new(0);
        let passed = |limit: &mut RateLimit, uid, n: usize, t| (0..n).filter(|_| limit.allows(uid, t)).count();
        assert_eq!(passed(&mut limit, 1, 20_000, 0), 10_000);
        assert_eq!(passed(&mut limit, 2, 5, 0), 5);
        assert_eq!(passed(&mut limit, 1, 5_000, S), 1_000);
        assert_eq!(passed(&mut limit, 1, 20_000, 3_600 * S), 10_000, "an allowance does not grow beyond a burst");
        // A clock that seems to go back gives nothing.
        assert_eq!(passed(&mut limit, 1, 10, 0), 0);
    }

    #[test]
    fn any_number_of_users_is_bounded_in_memory_and_in_marks() {
        let mut limit = RateLimit::new(0);
        let passed = (0..100_000_u32).filter(|uid| limit.allows(*uid, 0)).count();
        assert_eq!(limit.users.len(), MAX_USERS);
        assert_eq!(passed, MAX_USERS + 10_000);
        assert!(limit.allows(200_000, 60 * S), "the silent ones were forgotten");
    }
}
