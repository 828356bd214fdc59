//! How long the segments of a recording grow, and how long they are kept: the arguments of `agent`.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use energylens::agent::{Keeping, ROTATE_BYTES};

/// When segments are sealed and removed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keeping")]
pub(crate) struct KeepingArguments {
    /// Seal a segment and begin the next at multiples of this since midnight UTC; 0 for never.
    #[arg(long, default_value = "1day", value_parser = parse_period)]
    rotate_every: Duration,
    /// Seal a segment when its spool is this large; sealed, it takes about a tenth [default: 64MiB, or a quarter of
    /// --keep-at-most].
    #[arg(long, value_parser = parse_bytes)]
    rotate_size: Option<u64>,
    /// Remove sealed samples and telemetry of this agent that are older.
    #[arg(long, value_parser = parse_age)]
    keep_for: Option<Duration>,
    /// Remove the oldest of them while all of this agent's take more.
    #[arg(long, value_parser = parse_bytes)]
    keep_at_most: Option<u64>,
    /// Remove the oldest of them while less is free on the disk; pause when none is left.
    #[arg(long, value_parser = parse_bytes)]
    min_free: Option<u64>,
    /// How often temperatures, clocks, memory and throttling are read; 0 for never.
    #[arg(long, default_value = "1s", value_parser = parse_telemetry)]
    telemetry_every: Duration,
}

impl KeepingArguments {
    pub(crate) fn keeping(&self) -> anyhow::Result<Keeping> {
        if let (Some(segment), Some(budget)) = (self.rotate_size, self.keep_at_most) {
            ensure!(
                segment <= budget / 2,
                "--rotate-size {segment} does not fit --keep-at-most {budget}: expected at most half of it, as the \
                 segment that is being written is never removed"
            );
        }
        let fitting = self.keep_at_most.map_or(ROTATE_BYTES, |budget| ROTATE_BYTES.min(budget / 4));
        Ok(Keeping {
            rotate_every: Some(self.rotate_every).filter(|every| !every.is_zero()),
            rotate_bytes: self.rotate_size.unwrap_or(fitting),
            keep_for: self.keep_for,
            keep_bytes: self.keep_at_most,
            min_free_bytes: self.min_free,
        })
    }

    pub(crate) fn telemetry_every(&self) -> Option<Duration> {
        Some(self.telemetry_every).filter(|every| !every.is_zero())
    }
}

/// A duration of at least `least`, or 0 in any spelling where `or_never`.
fn parse_duration(text: &str, least: Duration, or_never: bool) -> Result<Duration, String> {
    if or_never && text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= least || (or_never && duration.is_zero()) => Ok(duration),
        Ok(_) => Err(format!("`{text}` is too short; expected {} or more", humantime::format_duration(least))),
        Err(e) => Err(format!("`{text}` is no duration such as 90s, 1h or 30d: {e}")),
    }
}

fn parse_period(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_secs(1), true)
}

fn parse_age(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_secs(60), false)
}

fn parse_telemetry(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_millis(100), true)
}

/// Bytes of at least a small segment: `64MiB`, `10GiB`, `2GB`, `1048576`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    const LEAST: f64 = 4_096.0;
    let text = text.trim();
    let with_unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = with_unit.unwrap_or((text, 1));
    match number.trim().parse::<f64>().map(|n| n * factor as f64) {
        Ok(bytes) if (LEAST..=1e18).contains(&bytes) => Ok(bytes as u64),
        Ok(bytes) if bytes.is_finite() => Err(format!("`{text}` is out of range; expected 4KiB to 1000000TB")),
        _ => Err(format!("`{text}` is no size; expected such as 64MiB, 10GiB or 2GB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        let known = [("64MiB", 67_108_864), ("10 GiB", 10_737_418_240), ("2GB", 2_000_000_000)];
        for (text, bytes) in &known {
            assert_eq!(parse_bytes(text), Ok(*bytes), "{text}");
        }
        assert_eq!(
            (parse_bytes("8192"), parse_bytes("8192B"), parse_bytes("16kB")),
            (Ok(8_192), Ok(8_192), Ok(16_000))
        );
        for bad in ["", "MiB", "64 mib", "-1GiB", "NaN", "inf", "1.5KiB", "99999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_means_never_only_where_never_makes_sense() {
        assert_eq!(parse_period("0"), Ok(Duration::ZERO));
        assert_eq!(parse_telemetry("0s"), Ok(Duration::ZERO));
        assert!(parse_age("0").is_err_and(|e| e.contains("`0` is")));
        assert!(parse_age("5s").is_err_and(|e| e.contains("expected 1m or more")));
    }
}
