//! `submit`, `status` and the batch scripts, with stand-ins for Slurm's programs; `tests/slurm.rs` has the real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::desk::{Desk, Ran, program};

/// A sweep on two and on four GPUs.
fn sweep(points: u32, slurm: &str) -> String {
    let demo = include_str!("../../scripts/sweeps/demo.lua");
    let resized = demo
        .replace("points = 50", &format!("points = {points}"))
        .replace("min_window_s = 5", "min_window_s = 1")
        .replace("llama-2-70b", "llama-2-7b")
        .replace("tensor_parallel = el.choice { 1, 2, 4, 8 }", "tensor_parallel = el.choice { 2, 4 }")
        .replace("pipeline_parallel = el.choice { 1, 2, 4 }", "pipeline_parallel = 1")
        .replace("workload =", &format!("slurm = {{ {slurm} }},\n  workload ="));
    assert!(resized.contains("{ 2, 4 }") && resized.contains("pipeline_parallel = 1"), "demo.lua has other axes now");
    resized
}

/// A desk with stand-ins for Slurm's programs. `sbatch` numbers jobs from 101, and fails from job `LIMIT` on.
struct Cluster {
    desk: Desk,
}

impl Cluster {
    fn new(points: u32, slurm: &str) -> Self {
        let cluster = Self { desk: Desk::new() };
        cluster.desk.put("sweep.lua", sweep(points, slurm)).put("limit", "999").put("squeue.txt", "");
        let dir = cluster.desk.path("");
        let dir = dir.display();
        cluster.put_program(
            "sbatch",
            &format!(
                "n=$((101 + $(cat {dir}/calls 2>/dev/null | wc -l)))\n\
                 if [ \"$n\" -ge \"$(cat {dir}/limit)\" ]; then echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; fi\n\
                 echo \"$*\" >> {dir}/calls\necho \"$n;here\""
            ),
        );
        cluster.put_program("squeue", &format!("cat {dir}/squeue.txt"));
        cluster.put_program("sacct", "exit 1");
        cluster.put_program(
            "scontrol",
            &format!("if [ \"$1\" = show ]; then echo 'MaxArraySize = 4'; else echo \"$*\" >> {dir}/scontrol; fi"),
        );
        cluster
    }

    fn put_program(&self, name: &str, body: &str) {
        self.desk.put(&format!("bin/{name}"), format!("#!/bin/bash\n{body}\n"));
        fs::set_permissions(self.desk.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755))
            .expect("a program");
    }

    fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.desk.path("bin").display())
    }

    fn type_in(&self, line: &str) -> Ran {
        let output = Command::new(program())
            .args(line.split_whitespace())
            .current_dir(self.desk.path(""))
            .env("PATH", self.path())
            .output()
            .expect("the program");
        Ran {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// A task's script, as Slurm would start it on a node.
    fn task(&self, array: u32, job: u32, task: u32) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(self.desk.path(&format!("c/slurm/array-{array:03}.sh")))
            .current_dir(self.desk.path("c"))
            .env("PATH", self.path())
            .env("SLURM_ARRAY_JOB_ID", job.to_string())
            .env("SLURM_ARRAY_TASK_ID", task.to_string())
            .env("SLURM_JOB_ID", (job + 1000 + task).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn arrays(&self) -> Vec<serde_json::Value> {
        let mut found: Vec<PathBuf> =
            fs::read_dir(self.desk.path("c/slurm")).expect("records").map(|e| e.expect("an entry").path()).collect();
        found.sort();
        let is_record = |p: &&PathBuf| {
            let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.starts_with("array-") && name.ends_with(".json")
        };
        let records = found.iter().filter(is_record);
        records.map(|p| serde_json::from_slice(&fs::read(p).expect("a record")).expect("JSON")).collect()
    }

    fn status(&self) -> serde_json::Value {
        self.type_in("status c --json").done().json()
    }
}

#[test]
fn a_submitted_sweep_is_carried_out_merged_and_fitted() {
    let cluster = Cluster::new(24, "partition = 'gpu', gres = 'gpu:{num_gpus}', runs_per_task = 3");
    let before = cluster.type_in("submit sweep.lua -o c --dry-run").done();
    before
        .prints("#SBATCH --gres=gpu:4")
        .prints("#SBATCH --partition=gpu")
        .prints("status")
        .remarks("nothing was submitted");
    assert!(!cluster.desk.path("c").exists());

    cluster.type_in("submit sweep.lua -o c").done().prints("job 101: array 000");
    let arrays = cluster.arrays();
    // Tasks of two classes; no array has more than three tasks (MaxArraySize 4).
    assert!(arrays.len() >= 4, "{arrays:?}");
    let mut runs = 0;
    for (record, job) in arrays.iter().zip(101..) {
        assert_eq!(record["job_id"], job);
        let tasks = record["tasks"].as_array().expect("tasks");
        assert!((1..=3).contains(&tasks.len()));
        runs += tasks.iter().map(|t| t.as_array().expect("runs").len()).sum::<usize>();
    }
    assert_eq!(runs, 24);
    let calls = cluster.desk.text("calls");
    let jobs: Vec<String> = (101..101 + arrays.len()).map(|j| j.to_string()).collect();
    let last = calls.lines().last().expect("the merging job");
    assert!(last.contains(&format!("--dependency=afterany:{} --kill-on-invalid-dep=yes", jobs.join(":"))), "{calls}");
    cluster.type_in("submit sweep.lua -o c").ends_with(1).remarks("--resubmit");
    cluster.type_in("run sweep.lua -o c").ends_with(1).remarks("are with Slurm");

    for (record, job) in arrays.iter().zip(101..) {
        for task in 0..record["tasks"].as_array().expect("tasks").len() as u32 {
            let array = record["array"].as_u64().expect("a number") as u32;
            assert!(cluster.task(array, job, task).status().expect("bash").success());
        }
    }
    let status = cluster.status();
    assert_eq!((status["finished"].as_u64(), status["missing"].as_u64()), (Some(24), Some(0)), "{status}");
    let merged =
        Command::new("bash").arg(cluster.desk.path("c/slurm/merge-000.sh")).env("PATH", cluster.path()).output();
    let merged = merged.expect("bash");
    assert!(String::from_utf8_lossy(&merged.stdout).contains("everything is merged"), "{merged:?}");
    assert!(!cluster.desk.path("c/tasks").exists());
    cluster.type_in("fit c -o model.json").done().prints("[simulated]");
    // All is there, so nothing is left for a runner; what it reduces anew is what was merged.
    let phases = |desk: &Desk| energylens::dataset::load(&desk.path("c")).expect("phases").rows;
    let key = |rows: Vec<energylens::dataset::Row>| {
        let mut keys: Vec<_> = rows.iter().map(|r| (r.run_id.clone(), r.phase, r.energy_j.map(f64::to_bits))).collect();
        keys.sort();
        keys
    };
    let merged = key(phases(&cluster.desk));
    assert_eq!(merged.len(), {
        let mut k = merged.clone();
        k.dedup();
        k.len()
    });
    cluster.type_in("run sweep.lua -o c").done().prints("0 runs carried out, 24 done before");
    assert_eq!(key(phases(&cluster.desk)), merged);
}

#[test]
fn a_sweep_that_asks_for_a_precision_leaves_out_the_repeats_that_nobody_needs() {
    let cluster = Cluster::new(1, "");
    let precise = include_str!("../../scripts/sweeps/precise.lua");
    let sweep = precise.replace("measure =", "slurm = { runs_per_task = 10 },\n  measure =");
    assert!(
        sweep.contains("max_repeats = 10") && sweep.contains("relative_std"),
        "precise.lua asks for other things now"
    );
    cluster.desk.put("sweep.lua", sweep);
    cluster.type_in("submit sweep.lua -o c").done();
    let arrays = cluster.arrays();
    let tasks = |array: &serde_json::Value| array["tasks"].as_array().expect("tasks").len() as u32;
    // Four points of up to ten runs, half of them on one GPU and half on two.
    assert_eq!(arrays.iter().map(tasks).collect::<Vec<_>>(), [2, 2]);
    for (array, record) in (0..).zip(&arrays) {
        for task in 0..tasks(record) {
            let ended = cluster.task(array, 101 + array, task).status().expect("bash");
            assert!(matches!(ended.code(), Some(0 | 3)), "{ended}");
        }
    }
    let ended = cluster.status();
    let count = |key: &str| ended[key].as_u64().expect("a number");
    assert_eq!((count("runs"), count("missing"), count("under_way")), (40, 0, 0), "{ended}");
    assert_eq!(count("finished") + count("spared"), 40, "{ended}");
    assert!(count("spared") > 0 && count("finished") >= 8, "{ended}");
    cluster.type_in("status c --merge").done().prints("repeats not needed").prints("everything is merged");
    let merged = cluster.status();
    for key in ["finished", "spared", "missing"] {
        assert_eq!(merged[key], ended[key], "{merged}");
    }
    cluster.type_in("status c --resubmit").ends_with(1).remarks("nothing is left to submit");
    // A runner that looks at all of it comes to the same end.
    let ran = cluster.type_in("run sweep.lua -o c");
    assert!(matches!(ran.code, Some(0 | 3)), "{}", ran.stderr);
    ran.prints(&format!(
        "0 runs carried out, {} done before, {} repeats not needed",
        count("finished"),
        count("spared")
    ));
}

#[test]
fn a_run_function_finds_its_neighbours_and_its_directory_on_the_node() {
    let cluster = Cluster::new(1, "");
    let sweep = "local el = require 'energylens'\n\
                 local card = el.card_from 'tiny'\n\
                 return el.sweep { name = 'own', axes = { model = card, gpu_model = 'a100-80gb',\n\
                 batch_size = el.choice { 1, 2 }, input_tokens = 64, output_tokens = 1 }, design = el.factorial {},\n\
                 engine = 'mine', gpus = 1, slurm = { runs_per_task = 2 }, measure = { idle_s = 0.05 },\n\
                 run = function(run)\n\
                   local said = run:exec { argv = { 'bin/client', run.point.batch_size } }\n\
                   assert(said.code == 0, said.output)\n\
                   run:phase('prefill', function() run:sleep(0.1) end)\n\
                   run:record { prefill_batches = 1 }\n\
                   run:log(said.output)\n\
                 end }\n";
    cluster.desk.put("sweeps/own.lua", sweep).put(
        "sweeps/tiny/config.json",
        r#"{ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 688,
            "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 1000,
            "torch_dtype": "bfloat16" }"#,
    );
    cluster.put_program("client", "echo \"batch of $1 in $PWD\"");
    cluster.type_in("submit sweeps/own.lua -o c").done();
    fs::create_dir(cluster.desk.path("d")).expect("a directory");
    for name in ["campaign.json", "plan.json"] {
        fs::copy(cluster.desk.path(&format!("c/{name}")), cluster.desk.path(&format!("d/{name}"))).expect("a copy");
    }
    cluster.desk.put("sweeps/own.lua", format!("{sweep}-- the same plan\n"));
    cluster.type_in("submit sweeps/own.lua -o d").ends_with(1).remarks("began with another text of this script");
    // What is carried out is what was submitted.
    cluster.desk.put("sweeps/own.lua", "return nothing");
    assert!(cluster.task(0, 101, 0).status().expect("bash").code().is_some_and(|code| [0, 3].contains(&code)));
    cluster.type_in("status c --merge").done().prints("2 of 2 runs done, 0 of them failed");
    let logs = fs::read_dir(cluster.desk.path("c/logs/000-0")).expect("logs").map(|e| e.expect("an entry").path());
    let said: String = logs.map(|log| fs::read_to_string(log).expect("a log")).collect();
    let here = fs::canonicalize(cluster.desk.path("")).expect("the desk");
    for batch in [1, 2] {
        assert!(said.contains(&format!("batch of {batch} in {}\n", here.display())), "{said}");
    }
}

#[test]
fn what_a_full_queue_refuses_is_submitted_later() {
    let cluster = Cluster::new(12, "runs_per_task = 1");
    cluster.desk.put("limit", "103");
    let refused = cluster.type_in("submit sweep.lua -o c").ends_with(1);
    let refused = refused.remarks("QOSMaxSubmitJobPerUserLimit").remarks("were not submitted").remarks("--resubmit");
    refused.prints("job 102: array 001");
    assert_eq!(cluster.arrays().len(), 2);
    let waiting: String = (101..=102)
        .flat_map(|job| (0..3).map(move |task| format!("{job}|{task}|{}|PENDING||Priority\n", job + 1000 + task)))
        .collect();
    cluster.desk.put("squeue.txt", &waiting).put("limit", "999");
    let status = cluster.status();
    assert_eq!((status["under_way"].as_u64(), status["missing"].as_u64()), (Some(6), Some(6)), "{status}");
    cluster.type_in("status c").done().prints("tasks wait because of: Priority (6)");
    cluster.type_in("status c --resubmit").done().prints("array 002");
    let runs: Vec<String> = cluster
        .arrays()
        .iter()
        .flat_map(|a| a["tasks"].as_array().expect("tasks").clone())
        .flat_map(|t| t.as_array().expect("runs").clone())
        .map(|r| r.to_string())
        .collect();
    let mut distinct = runs.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!((runs.len(), distinct.len()), (12, 12), "each run in one task");
}

#[test]
fn an_ended_task_is_shown_with_its_log_and_its_runs_are_submitted_again() {
    let cluster = Cluster::new(8, "runs_per_task = 4");
    cluster.type_in("submit sweep.lua -o c").done();
    let arrays = cluster.arrays().len() as u32;
    let first = "101|0|1101|NODE_FAIL|n7|NodeDown\n";
    let others: String = (102..101 + arrays).map(|job| format!("{job}|0|1102|RUNNING|n1|None\n")).collect();
    cluster
        .desk
        .put("squeue.txt", format!("{first}{others}"))
        .put("c/slurm/logs/000-0.log", "one\nCUDA out of memory\u{1b}[31m\n");
    let shown = cluster.type_in("status c").done();
    let shown =
        shown.prints("task 000-0: NODE_FAIL (NodeDown) on n7, 0 of 4 runs done").prints("    CUDA out of memory[31m");
    assert!(!shown.stdout.contains('\u{1b}'));
    cluster.type_in("status c --resubmit").done();
    let again = cluster.arrays();
    assert_eq!(again.last().expect("one more")["tasks"][0], again[0]["tasks"][0], "exactly the runs of the ended task");
    // Twice in a row: nothing is missing any more.
    let job = 101 + arrays + 1;
    cluster.desk.put("squeue.txt", format!("{others}{job}|0|1109|PENDING||None\n"));
    cluster.type_in("status c --resubmit").ends_with(1).remarks("nothing is left to submit");
}

#[test]
fn without_an_answer_of_the_cluster_nothing_is_resubmitted() {
    let cluster = Cluster::new(8, "runs_per_task = 4");
    cluster.type_in("submit sweep.lua -o c").done();
    cluster.put_program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1");
    cluster.type_in("status c --resubmit").ends_with(1).remarks("Unable to contact slurm controller");
    cluster.type_in("status c").done().remarks("does not answer");
    cluster.type_in("status c --merge").done();
    assert_eq!(cluster.status()["tasks"].as_array().map(Vec::len), Some(2), "unknown tasks stay open");
}

#[test]
fn mistakes_are_told_before_anything_is_submitted() {
    let told = |slurm: &str, part: &str| {
        let cluster = Cluster::new(8, slurm);
        cluster.type_in("submit sweep.lua -o c").ends_with(1).remarks(part);
        assert!(!cluster.desk.path("calls").exists(), "{slurm}");
    };
    told("partitoin = 'x'", "did you mean `partition`?");
    told("output = 'x'", "slurm takes no `output`");
    told("gres = 'gpu:1'", "need 2");
    told("time = '1h'", "H:M:S");
    let cluster = Cluster::new(8, "");
    // Where Slurm is installed, its sbatch is in /usr/bin.
    let output = Command::new(program())
        .args(["submit", "sweep.lua", "-o", "c"])
        .current_dir(cluster.desk.path(""))
        .env("PATH", cluster.desk.path("nowhere"))
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`sbatch` is in no directory of PATH"), "{said}");
    cluster.type_in("status nowhere").ends_with(1);
}

/// Waits until the journal of the task has `lines` lines.
fn wait_for_runs(cluster: &Cluster, lines: usize) {
    let give_up = Instant::now() + Duration::from_secs(120);
    let journal = cluster.desk.path("c/tasks/000-0/runs.jsonl");
    while fs::read_to_string(&journal).map_or(0, |t| t.lines().count()) < lines {
        assert!(Instant::now() < give_up, "no {lines} runs within two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_task_that_is_told_of_its_time_limit_asks_to_be_requeued_and_goes_on() {
    let cluster = Cluster::new(3000, "runs_per_task = 3000, time = 10");
    cluster.type_in("submit sweep.lua -o c").done();
    for (signal, code) in [(Signal::USR1, 75), (Signal::TERM, 75)] {
        let before = fs::read_to_string(cluster.desk.path("c/tasks/000-0/runs.jsonl")).map_or(0, |t| t.lines().count());
        let mut child = cluster.task(0, 101, 0).spawn().expect("bash");
        wait_for_runs(&cluster, before + 2);
        kill_process(Pid::from_child(&child), signal).expect("a signal");
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
    }
    // Once: a task that is ended by SIGTERM is Slurm's to requeue.
    assert_eq!(cluster.desk.text("scontrol"), "requeue 101_0\n");
    let lines: Vec<String> = cluster.desk.text("c/tasks/000-0/runs.jsonl").lines().map(str::to_owned).collect();
    let ids: std::collections::BTreeSet<String> = lines
        .iter()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON")["run_id"].to_string())
        .collect();
    assert_eq!(ids.len(), lines.len(), "no run twice");
}
