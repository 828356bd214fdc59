//! Files as people write them, with what is said of them.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::dataset::{write_csv, write_phases};
use crate::schema::{EnergySource, Phase};

const HEADER: &str =
    "model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,batch_size,input_tokens,output_tokens,energy_j";
const GOOD: &str = "m-70b,A100,4,4,1,8,512,128,9000";

fn written(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.csv");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn loaded(text: impl AsRef<[u8]>) -> Result<Dataset, Error> {
    load(&written(text).1)
}

fn message(text: &str) -> String {
    loaded(text).expect_err("refused").to_string()
}

/// The rows with one column more, and its value in every row.
fn with(column: &str, value: &str) -> String {
    format!("{HEADER},{column}\n{GOOD},{value}\n")
}

#[test]
fn the_nine_columns_are_enough() {
    let dataset = loaded(format!("{HEADER}\n{GOOD}\n")).unwrap();
    let row = &dataset.rows[0];
    assert_eq!((row.line, row.phase, row.data_parallel, row.expert_parallel), (1, Phase::Total, 1, 1));
    assert_eq!((row.energy_j, row.input_tokens, row.source), (Some(9000.0), Some(512.0), EnergySource::Imported));
    assert_eq!((dataset.rejected.len(), dataset.notes.len()), (0, 0));
}

#[test]
fn spreadsheets_of_all_kinds_are_understood() {
    let plain = format!("{HEADER}\n{GOOD}\n");
    let table = [
        ("byte order mark", format!("\u{feff}{plain}")),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("blank lines", format!("\n{HEADER}\n\n{GOOD}\n\n,,,,,,,,\n")),
        ("no newline at the end", plain.trim_end().to_owned()),
        ("semicolons", plain.replace(',', ";")),
        ("tabs", plain.replace(',', "\t")),
        ("quotes and spaces", format!("{HEADER}\n\"m-70b\", A100 ,4,4,1,8,512,\"128\",9e3\n")),
        ("separators behind the last column", format!("{HEADER},,\n{GOOD},,\n")),
        ("a comment", format!("# measured in May\n{plain}")),
        ("missing optional values", format!("{HEADER},phase,duration_s,engine\n{GOOD},,NA,NaN\n")),
        ("columns that are not ours", format!("{HEADER},operator,weather\n{GOOD},me,fair\n")),
    ];
    let expected = loaded(&plain).unwrap().rows;
    for (what, text) in table {
        let dataset = loaded(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(dataset.rows, expected, "{what}");
    }
    assert!(loaded(plain.replace(',', ";")).unwrap().notes[0].contains("semicolons"));
}

#[test]
fn a_column_that_is_missing_or_misspelt_is_named_with_the_fix() {
    let table = [
        ("energy_j", "energy_mj", "energy_mj is in millijoules; energylens wants energy_j in joules: divide by 1000"),
        ("energy_j", "energy_kwh", "energy_kwh is in kWh; energylens wants energy_j in joules: multiply by 3.6e6"),
        ("energy_j", "Energy_J", "the nearest column is Energy_J"),
        ("energy_j", "watts", "expected at least the columns model,"),
        ("tensor_parallel", "tp", "column tp seems to be it: rename it tensor_parallel"),
        ("tensor_parallel", "tensor_paralel", "the nearest column is tensor_paralel"),
        ("input_tokens", "prompt_tokens", "rename it input_tokens"),
    ];
    for (column, found, expected) in table {
        let got = message(&format!("{}\n{GOOD}\n", HEADER.replace(column, found)));
        assert!(got.contains(&format!("column {column} is missing")) && got.contains(expected), "{found}: {got}");
    }
    let got = message(&with("data_paralel", "1"));
    assert!(got.contains("column data_paralel is not known; did you mean data_parallel?"), "{got}");
    let got = message(&with("energy_j", "1"));
    assert!(got.contains("column energy_j stands there 2 times"), "{got}");
    let notes = loaded(with("latency_ms", "900")).unwrap().notes;
    assert!(notes[0].contains("duration_s in seconds: divide by 1000"), "{notes:?}");
}

#[test]
fn a_bad_row_is_refused_with_row_column_and_fix_and_the_others_stay() {
    let table = [
        ("m-70b,A100,4,4,1,8,512,128,-5", "energy_j", "expected more than 0, found -5"),
        ("m-70b,A100,4,4,1,8,512,128,inf", "energy_j", "expected a finite number, found inf"),
        ("m-70b,A100,4,4,1,8,512,128,NaN", "energy_j", "found nothing"),
        ("m-70b,A100,4,4,1,8,512,128,nine", "energy_j", "expected a number, found `nine`"),
        ("m-70b,A100,4,4,1,8,512,128,\"9,5\"", "energy_j", "decimal mark"),
        ("m-70b,A100,4,4,1,8,512,128,9000 J", "energy_j", "write the number alone"),
        ("m-70b,A100,4,4,1,8,512,128,9000000000", "energy_j", "energy_j seems to be in microjoules: divide it by 1e6"),
        ("m-70b,A100,4,4,1,8,512,128,9000000", "energy_j", "energy_j seems to be in millijoules: divide it by 1000"),
        ("m-70b,A100,4,4,1,8,512,128,0.0025", "energy_j", "energy_j seems to be in kWh: multiply it by 3.6e6"),
        // 4.7 J a token on four GPUs is what 70 billion parameters may take, and not what one billion may.
        ("m-1.1b,A100,4,4,1,8,512,128,900000", "energy_j", "energy_j seems to be in millijoules: divide it by 1000"),
        (",A100,4,4,1,8,512,128,9000", "model", "expected a name, found nothing"),
        ("m-70b,A100,4,2.5,1,8,512,128,9000", "tensor_parallel", "whole number"),
        ("m-70b,A100,4,0,1,8,512,128,9000", "tensor_parallel", "expected 1 or more, found 0"),
        ("m-70b,A100,8,4,1,8,512,128,9000", "num_gpus", "with 2 replicas say data_parallel = 2"),
        ("m-70b,A100,4,4,1,8,512,0,9000", "output_tokens", "expected 1 or more, found 0"),
    ];
    for (line, column, reason) in table {
        let dataset = loaded(format!("{HEADER}\n{GOOD}\n{line}\n{GOOD}\n")).unwrap();
        assert_eq!(dataset.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 3], "{line}");
        let refused = &dataset.rejected[0];
        assert_eq!((refused.line, refused.column.as_deref()), (2, Some(column)), "{line}");
        assert!(refused.reason.contains(reason), "{line}: {}", refused.reason);
        assert!(refused.to_string().starts_with(&format!("row 2, column {column}: ")));
    }
    let dataset = loaded(format!("{HEADER}\n{GOOD}\nm-70b,A100,4\n")).unwrap();
    assert!(dataset.rejected[0].reason.contains("expected 9 fields as in the header, found 3"));
    assert!(message(&format!("{HEADER}\nm,A100,8,4,1,8,512,128,9000\n")).contains("none of 1 rows can be used; row 1"));
    assert!(message(HEADER).contains("no rows"));
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let table = [
        ("phase", "prefil", "expected one of prefill, decode, total"),
        ("expert_parallel", "8", "at most tensor_parallel x data_parallel = 4"),
        ("duration_s", "0", "expected more than 0"),
        // 9000 J over 4 GPUs: 2.25 MW each over a millisecond, 2.25 W over 1000 s.
        ("duration_s", "0.001", "energy_j seems to be in millijoules"),
        ("duration_s", "1000", "or is duration_s in ms?"),
        ("energy_j_std", "-1", "expected 0 or more"),
        ("params", "70", "in billions? multiply by 1e9"),
        ("bytes_per_weight", "16", "in bits? divide by 8"),
        ("gpu_memory_bytes", "80", "in GB? multiply by 1e9"),
        ("quality", "power_integrated;counter_reset", "counter_reset"),
        ("source", "guess", "source `guess` is unknown"),
    ];
    for (column, value, reason) in table {
        let text = format!("{HEADER},{column}\n{GOOD},\n{GOOD},{value}\n{GOOD},\n");
        let dataset = loaded(text).unwrap_or_else(|e| panic!("{column}: {e}"));
        assert_eq!(dataset.rows.len(), 2, "{column}");
        let refused = &dataset.rejected[0];
        assert_eq!((refused.line, refused.column.as_deref().is_some()), (2, true), "{column}");
        assert!(refused.reason.contains(reason), "{column}: {}", refused.reason);
    }
}

#[test]
fn a_file_in_another_unit_is_refused_as_a_whole() {
    for (factor, expected) in [(1e3, "millijoules"), (1e6, "microjoules"), (1.0 / 3.6e6, "kWh")] {
        for duration in ["", "11.25"] {
            let rows: String = (1..=6)
                .map(|i| format!("m-70b,A100,4,4,1,8,512,128,{},{duration}\n", 1500.0 * f64::from(i) * factor))
                .collect();
            let got = message(&format!("{HEADER},duration_s\n{rows}"));
            assert!(got.contains(expected) && got.contains("of 6 rows"), "{factor}: {got}");
        }
    }
}

#[test]
fn a_replica_without_a_sequence_is_refused() {
    let text = format!("{HEADER},data_parallel\nm-70b,A100,4,2,1,1,512,128,900,2\nm-70b,A100,4,2,1,2,512,128,900,2\n");
    let dataset = loaded(text).unwrap();
    assert_eq!((dataset.rows.len(), dataset.rejected[0].column.as_deref()), (1, Some("batch_size")));
    let reason = &dataset.rejected[0].reason;
    assert!(reason.contains("at least one sequence per replica, data_parallel = 2, found 1"), "{reason}");
}

#[test]
fn phases_of_one_batch_are_one_run_where_the_table_names_none() {
    let rows = "m-70b,A100,4,4,1,8,512,128,9000,total\n\
                m-70b,A100,4,4,1,8,512,128,9100,\n\
                m-70b,A100,4,4,1,8,512,128,8000,decode\n\
                m-70b,A100,4,4,1,8,512,64,4000,decode\n\
                m-70b,A100,4,2,2,8,512,128,8000,decode\n\
                m-70b,A100,4,4,1,8,512,128,8100,decode\n\
                m-70b,A100,4,4,1,8,512,128,8200,decode\n";
    let dataset = loaded(format!("{HEADER},phase\n{rows}")).unwrap();
    let ids: Vec<&str> = dataset.rows.iter().map(|r| r.run_id.as_str()).collect();
    assert_eq!(ids, ["row-1", "row-2", "row-1", "row-4", "row-5", "row-2", "row-7"]);
    // Runs that are named stay as they are.
    let named: String = rows.lines().map(|line| format!("{line},x{}\n", line.len())).collect();
    let dataset = loaded(format!("{HEADER},phase,run_id\n{named}")).unwrap();
    assert!(dataset.rows.iter().all(|r| r.run_id.starts_with('x')));
}

/// TinyLlama on an A100, from a time per step and a power that were not taken from the bounds: 4 ms and a bit per
/// sequence, 120 W to 350 W.
fn small_model(i: usize, factor: f64) -> (f64, f64) {
    let batch = [1.0, 4.0, 16.0, 64.0, 256.0][i % 5];
    let duration_s = 128.0 * (0.004 + 2e-5 * batch) + 512.0 * batch * 1.5e-5;
    let power_w = 120.0 + 230.0 * (batch / 256.0_f64).sqrt();
    (batch, power_w * duration_s * factor)
}

#[test]
fn a_small_model_in_another_unit_is_refused_and_the_unit_named() {
    let columns = format!("{HEADER},params");
    let table = |name: &str, params: &str, factor: &dyn Fn(usize) -> f64| {
        let rows = (0..100).map(|i| {
            let (batch, energy) = small_model(i, factor(i));
            format!("{name},A100-SXM4-80GB,1,1,1,{batch},512,128,{energy},{params}\n")
        });
        format!("{columns}\n{}", rows.collect::<String>())
    };
    for (name, params) in [("lab/mine", "1.1e9"), ("lab/mine-1.1b", ""), ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "")] {
        let good = loaded(table(name, params, &|_| 1.0)).unwrap();
        assert_eq!((good.rows.len(), good.rejected.len()), (100, 0), "{name}");
        for (factor, unit) in
            [(1e3, "in millijoules"), (1e6, "in microjoules"), (1e-3, "in kilojoules"), (1.0 / 3.6e6, "in kWh")]
        {
            let got = message(&table(name, params, &|_| factor));
            assert!(got.contains("rows are off by one factor: energy_j seems to be") && got.contains(unit), "{got}");
            assert!(!got.contains("in Wh"), "{got}");
            // A few among good ones: these are the measure of them.
            let few = loaded(table(name, params, &|i| if i % 20 == 3 { factor } else { 1.0 })).unwrap();
            assert_eq!((few.rows.len(), few.rejected.len()), (95, 5), "{name} {factor}");
            for refused in &few.rejected {
                assert!(refused.reason.contains(unit), "{name} {factor}: {refused}");
            }
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut dataset = loaded(format!("{HEADER},phase,duration_s,engine\n{GOOD},decode,8.5,vLLM\n{GOOD},,,\n")).unwrap();
    dataset.rows[1].quality = vec!["power_integrated".to_owned()];
    dataset.rows[1].energy_j_std = Some(0.1 + 0.2);
    let dir = tempfile::tempdir().unwrap();
    for name in ["phases.parquet", "rows.csv"] {
        let path = dir.path().join(name);
        let write = if name.ends_with("csv") { write_csv } else { write_phases };
        write(&path, &dataset).unwrap();
        assert_eq!(load(&path).unwrap(), dataset, "{name}");
    }
    assert_eq!(load(dir.path()).unwrap(), dataset, "the directory stands for its phases.parquet");
    let empty = tempfile::tempdir().unwrap();
    assert!(load(empty.path()).unwrap_err().to_string().contains("without phases.parquet"));
}

#[test]
fn configurations_need_no_energy_and_keep_their_text() {
    let header = HEADER.trim_end_matches(",energy_j");
    let (_dir, path) = written(format!("{header},note\nm,A100,2,2,1,8,512,128,\"a, b\"\nm,A100,3,2,1,8,512,128,c\n"));
    let got = load_configurations(&path).unwrap();
    assert_eq!(got.headers.last().map(String::as_str), Some("note"));
    assert_eq!(got.records[0].last().map(String::as_str), Some("a, b"));
    assert!(got.rows[0].as_ref().is_ok_and(|r| r.energy_j.is_none() && r.tensor_parallel == 2));
    assert!(got.rows[1].as_ref().is_err_and(|r| r.line == 2 && r.column.as_deref() == Some("num_gpus")));
    let (_dir, path) = written(format!("{HEADER}\nm,A100,2,2,1,8,512,128,-1\n"));
    assert!(load_configurations(&path).unwrap().rows[0].is_ok(), "a bad energy is no matter: it is the question");
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let got = load(Path::new("/nonexistent/rows.csv")).unwrap_err();
    assert_eq!(got.to_string(), "cannot read /nonexistent/rows.csv");
    assert!(std::error::Error::source(&got).is_some());
}

#[test]
fn parquet_of_other_programs_is_read_in_their_usual_compressions() {
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, GzipLevel};
    use parquet::file::properties::WriterProperties;

    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("phases.parquet");
    write_phases(&ours, &loaded(format!("{HEADER}\n{GOOD}\n{GOOD}\n")).unwrap()).unwrap();
    let rows = load(&ours).unwrap().rows;
    let read = || crate::store::open_parquet(fs::File::open(&ours).unwrap()).unwrap();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        let theirs = dir.path().join("theirs.parquet");
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = fs::File::create(&theirs).unwrap();
        let mut writer = ArrowWriter::try_new(file, read().schema().clone(), Some(properties)).unwrap();
        read().build().unwrap().for_each(|batch| writer.write(&batch.unwrap()).unwrap());
        writer.close().unwrap();
        let again = load(&theirs).unwrap_or_else(|e| panic!("{compression}: {e}"));
        assert_eq!(again.rows, rows, "{compression}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: proptest::test_runner::RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_an_error_or_rows_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = loaded(&bytes);
        let _ = loaded([b"PAR1", bytes.as_slice(), b"PAR1"].concat());
        let _ = loaded([format!("{HEADER}\n").as_bytes(), bytes.as_slice()].concat());
    }

    #[test]
    fn any_cell_is_an_error_or_a_row_and_no_panic(
        cells in prop::collection::vec("[-+.,;\"0-9eEinfaNx \t]{0,12}|-?[0-9]{1,25}|NaN|1e400", 9..=9),
    ) {
        let _ = loaded(format!("{HEADER}\n{}\n{GOOD}\n", cells.join(",")));
    }

    #[test]
    fn a_damaged_parquet_file_is_an_error_or_rows_and_no_panic(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("phases.parquet");
        write_phases(&path, &loaded(format!("{HEADER}\n{GOOD}\n{GOOD}\n")).unwrap()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, bytes).unwrap();
        let _ = load(&path);
    }
}
