use proptest::prelude::*;

use super::*;
use crate::schema::Origin;
use crate::store::Serving;

fn plan() -> Plan {
    let source = "local el = require 'energylens'\nreturn el.sweep { name = 'j', axes = { model = 'llama-2-7b', gpu_model = 'a100',\n\
                  input_tokens = 64, output_tokens = 16, batch_size = el.choice { 1, 2, 3 } },\n\
                  design = el.factorial {}, workload = el.simulated {} }";
    Plan::from_source("j.lua", source, Path::new("."), &mut |_| ()).unwrap()
}

fn row(run_id: &str) -> RunRow {
    RunRow {
        run_id: run_id.to_owned(),
        point_id: "p".to_owned(),
        repeat: 0,
        status: RunStatus::Done,
        error: None,
        host: "h".to_owned(),
        source: Origin::Simulated,
        devices: vec!["sim:0".to_owned()],
        device_name: None,
        t_begin_mono_ns: 1,
        t_end_mono_ns: 9,
        prefill_batches: 2,
        decode_batches: None,
        total_batches: 3,
        prefill_duration_s: Some(0.1),
        total_duration_s: None,
        mean_ttft_s: Some(0.05),
        mean_tpot_s: None,
        serving: Serving::default(),
        model: "m".to_owned(),
        architecture: None,
        engine: None,
        precision: None,
        gpu_model: "g".to_owned(),
        num_gpus: 1,
        tensor_parallel: 1,
        pipeline_parallel: 1,
        data_parallel: 1,
        expert_parallel: 1,
        batch_size: 1.0,
        input_tokens: Some(64.0),
        output_tokens: 16.0,
        kv_capacity_tokens: None,
        params: None,
        active_params: None,
        n_layers: None,
        hidden_size: None,
        kv_bytes_per_token: None,
        num_experts: None,
        experts_per_token: None,
        bytes_per_weight: None,
        gpu_memory_bytes: None,
        job_id: None,
        step_id: None,
    }
}

/// A campaign whose journal notes three runs, and the bytes of `runs.jsonl`.
fn three_runs(dir: &Path) -> (Campaign, Plan, Vec<u8>) {
    let (campaign, plan) = (Campaign::create_or_open(dir).unwrap(), plan());
    let mut journal = Journal::open(&campaign, &plan).unwrap();
    for id in ["a", "b", "c"] {
        journal.note(&row(id)).unwrap();
    }
    drop(journal);
    let bytes = std::fs::read(dir.join("runs.jsonl")).unwrap();
    (campaign, plan, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_journal_cut_anywhere_keeps_its_whole_lines_and_goes_on(cut in 0.0..=1.0_f64) {
        let dir = tempfile::tempdir().unwrap();
        let (campaign, plan, bytes) = three_runs(dir.path());
        let kept = &bytes[..(bytes.len() as f64 * cut) as usize];
        std::fs::write(dir.path().join("runs.jsonl"), kept).unwrap();
        let whole = kept.iter().filter(|b| **b == b'\n').count();
        let mut journal = Journal::open(&campaign, &plan).unwrap();
        prop_assert_eq!(journal.finished(), whole);
        journal.note(&row("d")).unwrap();
        drop(journal);
        let journal = Journal::open(&campaign, &plan).unwrap();
        prop_assert_eq!(journal.finished(), whole + 1);
        prop_assert!(journal.is_finished("d"));
    }

    #[test]
    fn foreign_lines_are_an_error_that_names_the_line(junk in "[^\\n]{0,40}") {
        let dir = tempfile::tempdir().unwrap();
        let (campaign, plan, mut bytes) = three_runs(dir.path());
        bytes.extend(junk.bytes());
        bytes.push(b'\n');
        std::fs::write(dir.path().join("runs.jsonl"), &bytes).unwrap();
        let message = Journal::open(&campaign, &plan).unwrap_err().to_string();
        prop_assert!(message.ends_with("runs.jsonl line 4 is no run"), "{}", message);
    }
}

#[test]
fn a_failed_run_is_counted_and_the_last_end_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (campaign, plan, _) = three_runs(dir.path());
    let mut journal = Journal::open(&campaign, &plan).unwrap();
    assert_eq!((journal.finished(), journal.failed(), journal.last_end_mono_ns()), (3, 0, Some(9)));
    journal.note(&RunRow { status: RunStatus::Failed, t_end_mono_ns: 20, ..row("x") }).unwrap();
    drop(journal);
    let journal = Journal::open(&campaign, &plan).unwrap();
    assert_eq!((journal.finished(), journal.failed(), journal.last_end_mono_ns()), (4, 1, Some(20)));
}

#[test]
fn a_plan_file_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    std::fs::write(dir.path().join("plan.json"), "{}").unwrap();
    let message = Journal::open(&campaign, &plan()).unwrap_err().to_string();
    assert!(message.ends_with("plan.json line 1 is no plan"), "{message}");
}
