//! Instants as tables of others write them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::dataset::Field;

/// Reads the instants of one column, all of which are numbers of seconds or all of which are times.
#[derive(Debug, Default)]
pub(super) struct Times {
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Seconds,
    Times,
}

impl Times {
    /// Seconds since the epoch, or since whatever the column counts from. The error says what was expected and found.
    pub(super) fn seconds(&mut self, field: &Field) -> Result<f64, String> {
        let unread = || format!("expected seconds or a time such as 2026-03-01T12:00:00Z, found {field}");
        let (kind, seconds) = match (field.number(), field) {
            (Some(number), _) => (Kind::Seconds, number),
            (None, Field::Text(text)) => (Kind::Times, unix_seconds(text.trim()).ok_or_else(unread)?),
            _ => return Err(unread()),
        };
        match *self.kind.get_or_insert(kind) {
            known if known == kind => Ok(seconds),
            Kind::Seconds => Err(format!("expected seconds, as in the rows before, found {field}")),
            Kind::Times => Err(format!("expected a time, as in the rows before, found {field}")),
        }
    }
}

/// A day, or a day and a time of it: `2026-03-01`, `2026-03-01 12:00`, `2026-03-01T12:00:00.5`, with `Z`, `UTC` or an
/// offset such as `+01:00` behind it. Without one it is UTC.
fn unix_seconds(text: &str) -> Option<f64> {
    const DAY: usize = "2026-03-01".len();
    let (text, offset_s) = match text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix("UTC")) {
        Some(rest) => (rest.trim_end(), 0.0),
        // The signs before are those between year, month and day.
        None => match text.get(DAY..)?.rfind(['+', '-']).map(|at| at + DAY) {
            Some(at) => (text.get(..at)?.trim_end(), offset_s(text.get(at..)?)?),
            None => (text, 0.0),
        },
    };
    let time = match (text.len(), text.matches(':').count()) {
        (DAY, 0) => format!("{text} 00:00:00"),
        (_, 1) => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let time: SystemTime = humantime::parse_rfc3339_weak(&time).ok()?;
    let utc_s = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    Some(utc_s - offset_s)
}

/// `+01:00`, `+0100` or `+01`.
fn offset_s(text: &str) -> Option<f64> {
    let (sign, digits) = (text.get(..1)?, text.get(1..)?.replacen(':', "", 1));
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let part = |range| digits.get(range).map_or(Some(0.0), |d: &str| d.parse::<f64>().ok());
    let (hours, minutes) = (part(0..2)?, part(2..4)?);
    let offset_s = hours * 3600.0 + minutes * 60.0;
    (minutes < 60.0 && hours <= 18.0).then_some(if sign == "-" { -offset_s } else { offset_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instant_has_many_spellings() {
        // 20513 days of 86400 s: 56 years of 365, 14 leap days, 31 + 28 of the year.
        let day = ((56 * 365 + 14 + 31 + 28) * 86_400) as f64;
        for (text, seconds) in [
            ("2026-03-01", day),
            ("2026-03-01 00:00", day),
            ("2026-03-01T01:00+01:00", day),
            ("2026-03-01T00:00:00+0000", day),
            ("2026-02-28T19:00:00-05", day),
            ("2026-03-01 00:00:00 UTC", day),
            ("2026-03-01T05:30:00.25+05:30", day + 0.25),
            ("2026-03-01T12:00Z", day + 43_200.0),
        ] {
            assert_eq!(unix_seconds(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "noon",
            "2026-03",
            "2026-13-01",
            "01.03.2026 00:00",
            "2026-03-01T00:00+1",
            "2026-03-01 25:00",
            "2026-03-01T00:00+19:00",
            "2026-03-01+01:00:00",
            "2026-03-0é",
        ] {
            assert_eq!(unix_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_column_is_of_one_kind() {
        let text = |t: &str| Field::Text(t.to_owned());
        let mut times = Times::default();
        assert!(times.seconds(&text("2026-03-01T00:00:00Z")).is_ok());
        let refused = times.seconds(&Field::Number(5.0)).unwrap_err();
        assert_eq!(refused, "expected a time, as in the rows before, found 5");
        let mut times = Times::default();
        assert_eq!(times.seconds(&text("7")), Ok(7.0));
        assert!(times.seconds(&text("2026-03-01")).unwrap_err().starts_with("expected seconds, as in the rows before"));
        assert!(times.seconds(&Field::Missing).unwrap_err().ends_with("found nothing"));
    }
}
