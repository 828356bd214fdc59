use super::*;
use crate::fit::synthetic::row;

#[test]
fn a_first_token_counts_once_and_what_has_none_is_not_called_missing() {
    let timed = |run: &str, phase, output, mean_ttft_s| Row {
        run_id: run.to_owned(),
        phase,
        mean_ttft_s,
        ..row(2, 1, 4.0, 512.0, output)
    };
    let rows = [
        // A run with its whole batch: the prefill repeats the time.
        timed("a", Phase::Prefill, 1.0, Some(0.5)),
        timed("a", Phase::Total, 128.0, Some(0.5)),
        // A run that stops at its first token has no other row to stand in.
        timed("b", Phase::Prefill, 1.0, Some(0.3)),
        // Nobody measured this one.
        timed("c", Phase::Total, 128.0, None),
        timed("c", Phase::Prefill, 1.0, None),
        // A decode has no first token, and nothing is amiss with it.
        timed("d", Phase::Decode, 128.0, None),
    ];
    let rows = rows.into_iter().enumerate().map(|(i, r)| Row { line: i + 1, ..r }).collect();
    let dataset = Dataset { rows, ..Dataset::default() };
    let (groups, refused) = groups_for(&dataset, Pool::None, &[Target::MeanTtftS]).expect("one kind of rows");
    let found: Vec<(f64, usize)> =
        groups[0].observations(Target::MeanTtftS).iter().map(|(o, line)| (o.value, *line)).collect();
    assert_eq!(found, [(0.5, 2), (0.3, 3)]);
    assert_eq!(refused.iter().map(|r| r.line).collect::<Vec<_>>(), [4]);
    // Of times per token, three rows have a place for one and none has any.
    let (_, refused) = groups_for(&dataset, Pool::None, &[Target::MeanTpotS]).expect("one kind of rows");
    assert_eq!(refused.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 4]);
}
