//! How long a segment grows, and how long it is kept.

use std::time::Duration;

use crate::units::NS_PER_S;

/// What a spool holds at most before it is sealed, if nothing else is asked for. Sealed it is about a tenth of that.
pub const ROTATE_BYTES: u64 = 64 << 20;
/// How long a segment grows at most, if nothing else is asked for.
pub const ROTATE_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// When segments are sealed and when sealed ones are removed. Nothing is removed unless asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// A segment is sealed at multiples of this since midnight UTC, so that files of several nodes cover the same hours.
    pub rotate_every: Option<Duration>,
    /// A segment is sealed when its spool has this many bytes.
    pub rotate_bytes: u64,
    /// Sealed segments older than this are removed.
    pub keep_for: Option<Duration>,
    /// The oldest sealed segments are removed while all of them have more bytes than this together.
    pub keep_bytes: Option<u64>,
    /// The oldest sealed segments are removed while the file system has fewer free bytes than this; when none is left,
    /// the recording pauses, so that it never fills the disk of others.
    pub min_free_bytes: Option<u64>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            rotate_every: Some(ROTATE_EVERY),
            rotate_bytes: ROTATE_BYTES,
            keep_for: None,
            keep_bytes: None,
            min_free_bytes: None,
        }
    }
}

impl Keeping {
    /// The first instant after `t_unix_ns` at which a segment ends by the clock.
    pub(super) fn next_rotation_unix_ns(&self, t_unix_ns: i64) -> i64 {
        let Some(every) = self.rotate_every else { return i64::MAX };
        let every_ns = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX).max(NS_PER_S as i64);
        (t_unix_ns.div_euclid(every_ns) + 1).saturating_mul(every_ns)
    }

    /// Whether anything may ever be removed.
    pub(super) fn removes(&self) -> bool {
        self.keep_for.is_some() || self.keep_bytes.is_some() || self.min_free_bytes.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_on_the_hour_and_days_at_midnight_utc() {
        let hourly = Keeping { rotate_every: Some(Duration::from_secs(3_600)), ..Keeping::default() };
        let s = 1_000_000_000;
        // 2001-09-09 01:46:40 UTC is 10^9 s; the hour ends 800 s later, the day 80,000 s later.
        assert_eq!(hourly.next_rotation_unix_ns(1_000_000_000 * s), 1_000_000_800 * s);
        assert_eq!(hourly.next_rotation_unix_ns(1_000_000_800 * s), 1_000_004_400 * s, "never the present instant");
        assert_eq!(Keeping::default().next_rotation_unix_ns(1_000_000_000 * s), 1_000_080_000 * s);
        let never = Keeping { rotate_every: None, ..Keeping::default() };
        assert_eq!(never.next_rotation_unix_ns(0), i64::MAX);
    }
}
