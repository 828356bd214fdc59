//! What a run tells that marks its own phases: when each was under way, and how many batches it held.

use std::path::Path;

use serde::Deserialize;

use crate::schema::{MarkEvent, Phase};
use crate::units::ns_to_s;

/// A mark that the workload made, on the clock of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sweep) struct OwnMark {
    pub(in crate::sweep) t_mono_ns: i64,
    pub(in crate::sweep) phase: String,
    pub(in crate::sweep) event: MarkEvent,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(in crate::sweep) struct OwnPhases {
    /// Marks that are nowhere else yet.
    pub(in crate::sweep) untold: Vec<OwnMark>,
    pub(in crate::sweep) prefill: OwnWindow,
    pub(in crate::sweep) decode: OwnWindow,
    pub(in crate::sweep) total: OwnWindow,
    pub(in crate::sweep) mean_ttft_s: Option<f64>,
    pub(in crate::sweep) mean_tpot_s: Option<f64>,
    pub(in crate::sweep) kv_capacity_tokens: Option<f64>,
}

/// All windows of one phase together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::sweep) struct OwnWindow {
    pub(in crate::sweep) batches: u32,
    pub(in crate::sweep) duration_s: f64,
}

/// What a workload says of a run beside its marks. Everything may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::sweep) struct Counts {
    pub(in crate::sweep) prefill_batches: Option<u32>,
    pub(in crate::sweep) decode_batches: Option<u32>,
    pub(in crate::sweep) total_batches: Option<u32>,
    pub(in crate::sweep) mean_ttft_s: Option<f64>,
    pub(in crate::sweep) mean_tpot_s: Option<f64>,
    pub(in crate::sweep) kv_capacity_tokens: Option<f64>,
}

/// A file of counts is a few hundred bytes.
const LARGEST_FILE_BYTES: u64 = 64 << 10;

impl Counts {
    /// The names that a workload may use.
    pub(in crate::sweep) const NAMES: [&'static str; 6] =
        ["prefill_batches", "decode_batches", "total_batches", "mean_ttft_s", "mean_tpot_s", "kv_capacity_tokens"];

    /// Reads the file that a command may leave; none is as good as an empty one.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let bytes = match std::fs::metadata(path) {
            Ok(meta) if meta.len() > LARGEST_FILE_BYTES => {
                return Err(format!("its result file has {} bytes; expected a short JSON object", meta.len()));
            }
            Ok(_) => std::fs::read(path).map_err(|e| format!("its result file cannot be read: {e}"))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(format!("its result file cannot be read: {e}")),
        };
        let counts: Self = serde_json::from_slice(&bytes).map_err(|e| {
            format!("its result file is not what it should be: {e}; expected an object of {}", Self::NAMES.join(", "))
        })?;
        counts.check().map(|()| counts)
    }

    fn check(&self) -> Result<(), String> {
        let batches = [self.prefill_batches, self.decode_batches, self.total_batches];
        if batches.contains(&Some(0)) {
            return Err("a number of batches is 0; leave out what was not run".to_owned());
        }
        let numbers = [self.mean_ttft_s, self.mean_tpot_s, self.kv_capacity_tokens];
        match numbers.into_iter().flatten().find(|n| !n.is_finite() || *n <= 0.0) {
            Some(n) => Err(format!("{n} stands for a time or a capacity; expected a number above 0")),
            None => Ok(()),
        }
    }
}

/// Time within a phase over all its windows, how many these are, and whether one of them is open.
fn windows(marks: &[OwnMark], phase: &str) -> (f64, u32, bool) {
    let mut sorted: Vec<&OwnMark> = marks.iter().filter(|m| m.phase == phase).collect();
    // At one instant a window ends before the next begins.
    sorted.sort_by_key(|m| (m.t_mono_ns, m.event == MarkEvent::Begin));
    let (mut begun, mut duration_s, mut count) = (None, 0.0, 0);
    for mark in sorted {
        match mark.event {
            MarkEvent::Begin => begun = Some(mark.t_mono_ns),
            MarkEvent::End => {
                if let Some(begin) = begun.take() {
                    duration_s += ns_to_s(mark.t_mono_ns - begin);
                    count += 1;
                }
            }
        }
    }
    (duration_s, count, begun.is_some())
}

/// Whether the marks are enough for a run that decodes, or one that does not.
fn missing(marks: &[OwnMark], is_prefill_only: bool) -> Option<String> {
    let has = |phase: Phase| windows(marks, phase.as_str()).1 > 0;
    if let Some(open) = Phase::ALL.iter().find(|p| windows(marks, p.as_str()).2) {
        return Some(format!("phase {open} was begun and not ended"));
    }
    if is_prefill_only {
        let lacking = "phase prefill was not marked; a point with one output token needs it";
        return (!has(Phase::Prefill)).then(|| lacking.to_owned());
    }
    let is_enough = has(Phase::Total) || has(Phase::Prefill) && has(Phase::Decode);
    (!is_enough).then(|| "neither phase total nor phases prefill and decode were marked".to_owned())
}

impl OwnPhases {
    /// Puts marks and counts together; a phase that nobody counted had one batch in each window.
    pub(super) fn of(marks: &[OwnMark], counts: &Counts, is_prefill_only: bool) -> Result<Self, String> {
        if let Some(missing) = missing(marks, is_prefill_only) {
            return Err(missing);
        }
        counts.check()?;
        let window = |phase: Phase, batches: Option<u32>| {
            let (duration_s, count, _) = windows(marks, phase.as_str());
            match batches {
                Some(n) if count == 0 => Err(format!("{n} batches of phase {phase} are counted; none was marked")),
                _ => Ok(OwnWindow { batches: batches.unwrap_or(count), duration_s }),
            }
        };
        Ok(Self {
            untold: Vec::new(),
            prefill: window(Phase::Prefill, counts.prefill_batches)?,
            decode: window(Phase::Decode, counts.decode_batches)?,
            total: window(Phase::Total, counts.total_batches)?,
            mean_ttft_s: counts.mean_ttft_s,
            mean_tpot_s: counts.mean_tpot_s,
            kv_capacity_tokens: counts.kv_capacity_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(t_ms: i64, phase: &str, event: MarkEvent) -> OwnMark {
        OwnMark { t_mono_ns: t_ms * 1_000_000, phase: phase.to_owned(), event }
    }

    #[test]
    fn windows_add_up_and_uncounted_ones_hold_a_batch_each() {
        use MarkEvent::{Begin, End};
        let marks = [
            mark(0, "prefill", Begin),
            mark(100, "prefill", End),
            mark(100, "prefill", Begin),
            mark(300, "prefill", End),
            mark(300, "decode", Begin),
            mark(800, "decode", End),
        ];
        let phases = OwnPhases::of(&marks, &Counts { decode_batches: Some(5), ..Counts::default() }, false).unwrap();
        assert_eq!(phases.prefill, OwnWindow { batches: 2, duration_s: 0.1 + 0.2 });
        assert_eq!(phases.decode, OwnWindow { batches: 5, duration_s: 0.5 });
        assert_eq!(phases.total.batches, 0);
        let open = OwnPhases::of(&marks[..5], &Counts::default(), false).unwrap_err();
        assert!(open.contains("decode was begun and not ended"), "{open}");
        let lacking = OwnPhases::of(&marks[..4], &Counts::default(), false).unwrap_err();
        assert!(lacking.contains("neither phase total"), "{lacking}");
        assert!(OwnPhases::of(&marks[..4], &Counts::default(), true).is_ok());
        let counted = Counts { total_batches: Some(3), ..Counts::default() };
        assert!(OwnPhases::of(&marks, &counted, false).unwrap_err().contains("none was marked"));
    }

    #[test]
    fn a_result_file_is_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        assert_eq!(Counts::read(&path), Ok(Counts::default()));
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Counts::read(&path)
        };
        assert_eq!(read(r#"{"prefill_batches": 7}"#).unwrap().prefill_batches, Some(7));
        for (wrong, expected) in [
            (r#"{"prefil_batches": 7}"#, "prefil_batches"),
            (r#"{"prefill_batches": 0}"#, "is 0"),
            (r#"{"prefill_batches": 1.5}"#, "expected"),
            (r#"{"mean_ttft_s": -1}"#, "above 0"),
            ("", "expected an object"),
        ] {
            assert!(read(wrong).is_err_and(|e| e.contains(expected)), "{wrong}");
        }
    }
}
