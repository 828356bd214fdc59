//! Sweeps through a real Slurm: slurmctld and two slurmd on this machine, brought up and taken down again.
//!
//! They are skipped, and say so, where Slurm is not installed or we are not root. One cluster serves all tests of this
//! file, so they run one after the other in one test.

#[path = "support/mod.rs"]
mod support;

// Not all that the tests of the engine itself need.
#[allow(dead_code)]
#[path = "engine/campaign.rs"]
mod campaign;
#[allow(dead_code)]
#[path = "engine/machine.rs"]
mod machine;
#[path = "slurm/preemption.rs"]
mod preemption;
#[path = "slurm/served.rs"]
mod served;
#[path = "slurm/user.rs"]
mod user;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what anything here takes; Slurm's own waits are up to two minutes.
const PATIENCE: Duration = Duration::from_secs(240);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cluster, and a directory to work in whose name is awkward.
struct Cluster {
    dir: TempDir,
    desk: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = script("slurm_down.sh", self.dir.path()).status();
    }
}

fn script(name: &str, dir: &Path) -> Command {
    let mut command = Command::new("bash");
    // Ports of our own: another cluster of this kind may be up.
    let port = 20_000 + std::process::id() % 10_000;
    command.arg(root().join("scripts").join(name)).env("EL_SLURM_DIR", dir.join("slurm"));
    command.env("EL_SLURM_PORT", port.to_string());
    command
}

impl Cluster {
    fn up() -> Option<Self> {
        let is_there = |name: &str| ["/usr/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
        let missing = ["munged", "slurmctld", "slurmd", "sbatch", "squeue"].iter().find(|name| !is_there(name));
        if let Some(missing) = missing {
            eprintln!("SKIPPED: {missing} is not installed, so nothing is tested against a real Slurm");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: a cluster of one's own needs root, so nothing is tested against a real Slurm");
            return None;
        }
        // slurmctld wants short paths for its sockets.
        let dir = tempfile::Builder::new().prefix("el").tempdir_in("/tmp").expect("a directory");
        let desk = dir.path().join("it's \"$(touch pwned)\" `touch pwned` #1");
        fs::create_dir(&desk).expect("a directory");
        let cluster = Self { dir, desk };
        let output = script("slurm_up.sh", cluster.dir.path()).output().expect("bash");
        if !output.status.success() {
            // A container may forbid device files or ports: that is no fault of ours.
            eprintln!("SKIPPED: no cluster came up: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(cluster)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(&self.desk).env("SLURM_CONF", self.dir.path().join("slurm/etc/slurm.conf"));
        command
    }

    fn energylens(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_energylens")).args(arguments).output().expect("the program")
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.energylens(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    #[track_caller]
    fn slurm(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output().expect("a program of Slurm's");
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Puts a sweep there and submits it into the campaign of the same name; gives the number of its first job.
    #[track_caller]
    fn submit(&self, name: &str, points: u32, window_s: u32, slurm: &str) -> u64 {
        // Two classes where many tasks are wanted, else one task.
        let tensor_parallel = if name == "whole" { "el.choice { 1, 2 }" } else { "2" };
        let demo = fs::read_to_string(root().join("scripts/sweeps/demo.lua")).expect("an example");
        let sweep = demo
            .replace("points = 50", &format!("points = {points}"))
            .replace("min_window_s = 5", &format!("min_window_s = {window_s}"))
            .replace("llama-2-70b", "llama-2-7b")
            .replace("tensor_parallel = el.choice { 1, 2, 4, 8 }", &format!("tensor_parallel = {tensor_parallel}"))
            .replace("pipeline_parallel = el.choice { 1, 2, 4 }", "pipeline_parallel = 1")
            .replace("workload =", &format!("slurm = {{ {slurm} }},\n  workload ="));
        fs::write(self.desk.join(format!("{name}.lua")), sweep).expect("a script");
        let submitted = self.json(&["submit", &format!("{name}.lua"), "-o", name, "--json"]);
        assert!(submitted["merge_job_id"].is_u64(), "{submitted}");
        submitted["arrays"][0]["job_id"].as_u64().expect("a number")
    }

    #[track_caller]
    fn status(&self, name: &str) -> Value {
        self.json(&["status", name, "--json"])
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    fn wait(&self, what: &str, is_there: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_there() {
            if begin.elapsed() > PATIENCE {
                let queue = self.slurm("squeue", &["--array", "--states=all"]);
                let log = fs::read_to_string(self.dir.path().join("slurm/log/slurmctld.log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("waited in vain for: {what}\n{queue}\n{}", end.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    fn wait_merged(&self, name: &str) {
        self.wait("everything merged", || {
            let status = self.status(name);
            status["missing"] == 0 && status["tasks"].as_array().is_some_and(Vec::is_empty)
        });
    }

    /// Lines of a task's journal.
    fn runs(&self, name: &str, task: &str) -> usize {
        let path = self.desk.join(name).join("tasks").join(task).join("runs.jsonl");
        fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    fn journal(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.desk.join(name).join("runs.jsonl")).expect("a journal");
        let id = |line: &str| serde_json::from_str::<Value>(line).expect("a run")["run_id"].to_string();
        let mut ids: Vec<String> = text.lines().map(id).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "a run stands twice in the journal");
        ids
    }

    fn log(&self, name: &str, task: &str) -> String {
        fs::read_to_string(self.desk.join(name).join("slurm/logs").join(format!("{task}.log"))).unwrap_or_default()
    }

    fn start_now(&self, job: u64) {
        // A job that starts within the second in which its last attempt was ended is refused by slurmd: its credential is
        // no younger than the revocation of the last one.
        std::thread::sleep(Duration::from_secs(3));
        // A requeued job waits two minutes otherwise. One that does not wait any more cannot be told.
        let _ = self.command("scontrol").args(["update", &format!("jobid={job}"), "StartTime=now"]).output();
    }
}

#[test]
fn sweeps_pass_through_a_real_cluster() {
    let Some(cluster) = Cluster::up() else { return };
    finishes_and_is_fitted(&cluster);
    goes_on_after_a_requeue(&cluster);
    is_cancelled_and_submitted_again(&cluster);
    survives_the_death_of_a_node(&cluster);
    stops_before_its_time_limit_and_is_requeued(&cluster);
    preemption::gives_way_and_goes_on(&cluster, "spare");
    served::engine_is_swept_by_an_array(&cluster);
    preemption::tell_of_grace(&cluster);
    preemption::gives_way_and_goes_on(&cluster, "patient");
    user::without_rights_submits_for_himself(&cluster);
    assert!(!cluster.desk.join("pwned").exists(), "a name was obeyed");
    let campaigns = fs::read_dir(&cluster.desk).expect("the desk").map(|e| e.expect("an entry").path());
    assert!(campaigns.filter(|p| p.is_dir()).all(|c| !c.join("pwned").exists()), "a name was obeyed");
}

fn finishes_and_is_fitted(cluster: &Cluster) {
    let comment = "[[it's `touch pwned` $(touch pwned) # \"z\" \\]]";
    let options = format!(
        "partition = 'main', time = 5, gres = 'gpu:{{num_gpus}}', comment = {comment}, runs_per_task = 4, at_once = 3"
    );
    let job = cluster.submit("whole", 24, 1, &options);
    let shown = cluster.slurm("scontrol", &["--oneliner", "show", "job", &job.to_string()]);
    assert!(shown.contains("Comment=it's `touch pwned` $(touch pwned) # \"z\" \\ "), "{shown}");
    assert!(shown.contains("TresPerNode=gres:gpu:1"), "{shown}");
    cluster.wait_merged("whole");
    assert_eq!(cluster.journal("whole").len(), 24);
    let table = energylens::store::read_table(&cluster.desk.join("whole"), &energylens::schema::RUNS).expect("runs");
    for batch in table {
        for row in energylens::store::RunRow::from_batch(&batch.expect("a batch")).expect("rows") {
            let number = row.job_id.as_deref().and_then(|id| id.parse::<u64>().ok());
            assert!(number.is_some_and(|id| id >= job), "run {} has job {:?}", row.run_id, row.job_id);
            assert_eq!(row.step_id.as_deref(), Some("batch").filter(|_| row.step_id.is_some()), "{}", row.run_id);
        }
    }
    let fitted = cluster.energylens(&["fit", "whole", "-o", "model.json"]);
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    let second = cluster.energylens(&["submit", "whole.lua", "-o", "whole"]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("--resubmit"));
}

fn goes_on_after_a_requeue(cluster: &Cluster) {
    let job = cluster.submit("requeued", 400, 2, "time = 30, runs_per_task = 400, gpus = 2");
    cluster.wait("some runs", || cluster.runs("requeued", "000-0") >= 3);
    cluster.slurm("scontrol", &["requeue", &format!("{job}_0")]);
    cluster.wait("the task waits", || cluster.status("requeued")["arrays"][0]["waiting"] == 1);
    let before = cluster.runs("requeued", "000-0");
    cluster.start_now(job);
    cluster.wait_merged("requeued");
    assert_eq!(cluster.journal("requeued").len(), 400);
    let log = cluster.log("requeued", "000-0");
    assert!(log.contains(&format!("{before} done before")) || before == 0, "{log}");
    // Each run that ended has its energy, those before the requeue too.
    let phases = energylens::dataset::load(&cluster.desk.join("requeued")).expect("phases");
    let with_phases: std::collections::BTreeSet<&str> = phases.rows.iter().map(|r| r.run_id.as_str()).collect();
    assert_eq!(with_phases.len(), 400, "{} rejected", phases.rejected.len());
}

fn is_cancelled_and_submitted_again(cluster: &Cluster) {
    let job = cluster.submit("cancelled", 600, 2, "time = 30, runs_per_task = 600, gpus = 2");
    cluster.wait("some runs", || cluster.runs("cancelled", "000-0") >= 3);
    cluster.slurm("scancel", &[&job.to_string()]);
    // The merging job takes what was done.
    cluster.wait("merged", || cluster.status("cancelled")["arrays"][0]["closed"].as_u64() >= Some(1));
    let first = cluster.journal("cancelled");
    assert!((3..600).contains(&first.len()), "{}", first.len());
    let again = cluster.json(&["status", "cancelled", "--resubmit", "--json"]);
    let submitted: u64 = again["arrays"].as_array().expect("arrays").iter().filter_map(|a| a["runs"].as_u64()).sum();
    cluster.wait("the rest", || cluster.status("cancelled")["missing"] == 0);
    cluster.wait_merged("cancelled");
    let whole = cluster.journal("cancelled");
    assert_eq!(whole.len(), 600);
    assert!(submitted <= (600 - first.len()) as u64, "{submitted} runs were submitted again after {}", first.len());
    assert!(first.iter().all(|run| whole.contains(run)));
}

/// Whether there is a process whose title begins so.
fn has_process(title: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let titles = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    titles.into_iter().any(|bytes| bytes.starts_with(title.as_bytes()))
}

fn survives_the_death_of_a_node(cluster: &Cluster) {
    let job = cluster.submit("orphaned", 600, 2, "time = 30, runs_per_task = 600, gpus = 2, nodelist = 'n2'");
    cluster.wait("some runs", || cluster.runs("orphaned", "000-0") >= 3);
    // The administrator takes the node for dead; its jobs are requeued.
    cluster.slurm("scontrol", &["update", "nodename=n2", "state=down", "reason=test"]);
    cluster.wait("the task waits again", || {
        let status = cluster.status("orphaned");
        status["tasks"].as_array().is_some_and(|t| t.iter().any(|t| t["task"] == "000-0" && t["state"] == "PENDING"))
    });
    // A node that still has the old attempt when it is given the next is drained by Slurm.
    cluster.wait("the first attempt is gone", || !has_process(&format!("slurmstepd: [{job}.")));
    cluster.wait("the node is back", || {
        let state = cluster.slurm("sinfo", &["--noheader", "--nodes=n2", "--format=%t"]);
        let is_out = ["down", "drain", "drng"].iter().any(|word| state.trim().starts_with(word));
        if is_out {
            // It may come back by itself in between, and then cannot be resumed.
            let _ = cluster.command("scontrol").args(["update", "nodename=n2", "state=resume"]).output();
        }
        !is_out
    });
    cluster.start_now(job);
    cluster.wait_merged("orphaned");
    assert_eq!(cluster.journal("orphaned").len(), 600);
}

fn stops_before_its_time_limit_and_is_requeued(cluster: &Cluster) {
    // A minute is the least that Slurm knows; so many runs take longer.
    let job = cluster.submit("late", 20_000, 10, "time = 1, runs_per_task = 20000, stop_early_s = 10, gpus = 2");
    cluster.wait("the task waits to go on", || {
        let status = cluster.status("late");
        status["tasks"].as_array().is_some_and(|t| t.iter().any(|t| t["task"] == "000-0" && t["state"] == "PENDING"))
            && cluster.log("late", "000-0").contains("left")
    });
    let before = cluster.runs("late", "000-0");
    assert!(before > 0);
    cluster.start_now(job);
    cluster.wait("it goes on", || cluster.runs("late", "000-0") > before);
    assert!(cluster.log("late", "000-0").contains("0 done before, 0 failed"), "the first attempt ended by itself");
    cluster.slurm("scancel", &[&job.to_string()]);
    cluster.wait("merged", || cluster.status("late")["arrays"][0]["closed"].as_u64() >= Some(1));
    assert!(cluster.journal("late").len() > before);
}
