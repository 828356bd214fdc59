//! A real inference server on the nodes: llama.cpp on the CPU, started and ended by the tasks of an array. Joules come
//! from the stub of NVIDIA's library.

use std::fs;

use energylens::schema::RunStatus;

use crate::Cluster;
use crate::campaign::{Sweep, phases, runs};
use crate::machine::Machine;
use crate::preemption::{take_node, wait_ended, wait_requeued};

/// Two tasks of two runs each, of which the first is preempted in its midst.
pub(crate) fn engine_is_swept_by_an_array(cluster: &Cluster) {
    let Some(machine) = Machine::ready() else { return };
    let options = "slurm = { partition = 'spare', nodelist = 'n1', exclusive = true, time = 30, gres = 'gpu:{num_gpus}',\n\
                   runs_per_task = 3, at_once = 1 },";
    let sweep = Sweep::new(&machine).server(&[], "").axes("batch_size = el.choice { 1, 2, 3 }").with(options);
    fs::write(cluster.desk.join("engine.lua"), sweep.script()).expect("a script");
    let submitted = cluster
        .command(env!("CARGO_BIN_EXE_energylens"))
        .args(["submit", "engine.lua", "-o", "engine"])
        // sbatch hands the environment on: on the node this is where the driver's library is.
        .env("LD_LIBRARY_PATH", sweep.stub_directory())
        .output()
        .expect("the program");
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    cluster.wait("a run", || cluster.runs("engine", "000-0") >= 1);
    let urgent = take_node(cluster);
    wait_requeued(cluster, "engine");
    machine.assert_quiet();
    wait_ended(cluster, urgent);
    let job = cluster.status("engine")["arrays"][0]["job_id"].as_u64().expect("a number");
    cluster.start_now(job);
    cluster.wait_merged("engine");

    let campaign = cluster.desk.join("engine");
    assert_eq!(cluster.journal("engine").len(), 6);
    for run in runs(&campaign) {
        let name = (run.status, run.error.as_deref(), run.engine.as_deref(), run.gpu_model.as_str());
        assert_eq!(name, (RunStatus::Done, None, Some("llama.cpp"), "stub"));
        let batches = if run.output_tokens > 1.0 { run.total_batches } else { run.prefill_batches };
        assert_eq!(run.serving.completed_requests, Some(batches * run.batch_size as u32));
        assert!(run.mean_ttft_s > Some(0.0) && run.serving.p50_ttft_s > Some(0.0), "{:?}", run.serving);
        assert_eq!(run.mean_tpot_s.is_some_and(|s| s > 0.0), run.output_tokens > 1.0, "{:?}", run.mean_tpot_s);
        assert!(run.devices.len() == 1 && run.devices[0].starts_with("nvml:"), "{:?}", run.devices);
    }
    // The stub's GPU draws 100 W whatever happens.
    let phases = phases(&campaign);
    let of = |name: &str| phases.iter().filter(|p| p.phase == name).collect::<Vec<_>>();
    assert_eq!((of("prefill").len(), of("total").len()), (6, 3), "{phases:?}");
    for phase in of("total") {
        assert!((80.0..125.0).contains(&phase.mean_power_w), "{phase:?}");
    }
    // Each start has its log, and nothing of any is left on the node.
    let logs: usize = ["000-0", "000-1"].iter().map(|task| entries(&campaign.join("logs").join(task))).sum();
    assert!(logs >= 3, "two tasks, of which one was started twice: {logs} logs");
    assert!(!campaign.join("tasks").exists());
    machine.assert_quiet();
}

fn entries(dir: &std::path::Path) -> usize {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    names.filter(|path| path.extension().is_some_and(|e| e == "log")).count()
}
