//! A user without rights, whose campaign is his own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::Cluster;

/// A user who is there for one test.
struct User {
    name: String,
    id: u32,
    desk: PathBuf,
    program: PathBuf,
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

impl User {
    /// A new user with a directory and a copy of the program that everybody may run.
    fn new(cluster: &Cluster) -> Option<Self> {
        let name = format!("elens{}", std::process::id());
        let made = Command::new("useradd").args(["--no-create-home", "--shell", "/bin/bash", &name]).output();
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no user can be made here, so nobody but root submits: {made:?}");
            return None;
        }
        let id = Command::new("id").args(["-u", &name]).output().expect("id");
        let id = String::from_utf8_lossy(&id.stdout).trim().parse().expect("a number");
        let root = cluster.dir.path();
        let (desk, program) = (root.join("his desk"), root.join("energylens"));
        let user = Self { name, id, desk, program };
        fs::create_dir(&user.desk).expect("a directory");
        fs::copy(env!("CARGO_BIN_EXE_energylens"), &user.program).expect("a copy of the program");
        // The cluster's directory is root's alone, as all temporary ones.
        for path in [root, &user.program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights");
        }
        Some(user)
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        let path = self.desk.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("rights");
    }

    /// Hands the desk over.
    fn owns_the_desk(&self) {
        each_file(&self.desk, &mut |path| chown(path, Some(self.id), None).expect("root may"));
    }

    fn energylens(&self, cluster: &Cluster, arguments: &[&str]) -> Output {
        let mut command = cluster.command("setpriv");
        command.args(["--reuid", &self.name, "--regid", &self.id.to_string(), "--clear-groups"]);
        command.arg(&self.program).args(arguments).current_dir(&self.desk).env("HOME", &self.desk);
        command.output().expect("setpriv")
    }
}

fn each_file(path: &Path, tell: &mut dyn FnMut(&Path)) {
    tell(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        each_file(&entry.path(), tell);
    }
}

/// The script's own `run`, a card beside it, and a client beside the user.
const SWEEP: &str = r#"
local el = require "energylens"
local card = el.card_from "tiny"
return el.sweep {
  name = "his",
  axes = { model = card, gpu_model = "a100-80gb", batch_size = el.choice { 1, 2 }, input_tokens = 64, output_tokens = 1 },
  design = el.factorial {},
  engine = "mine",
  gpus = 1,
  slurm = { time = 10, runs_per_task = 1 },
  measure = { idle_s = 0.1 },
  run = function(run)
    local said = run:exec { argv = { "./client", run.point.batch_size } }
    assert(said.code == 0, said.output)
    run:phase("prefill", function() run:sleep(0.2) end)
    run:record { prefill_batches = 1 }
    run:log(said.output)
  end,
}
"#;

const CARD: &str = r#"{ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256,
  "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8,
  "vocab_size": 1000, "torch_dtype": "bfloat16" }"#;

pub(crate) fn without_rights_submits_for_himself(cluster: &Cluster) {
    let Some(user) = User::new(cluster) else { return };
    user.put("sweeps/own.lua", SWEEP, 0o644);
    user.put("sweeps/tiny/config.json", CARD, 0o644);
    user.put("client", "#!/bin/sh\necho \"batch of $1 for $(id -un)\"\n", 0o755);
    user.owns_the_desk();
    let submitted = user.energylens(cluster, &["submit", "sweeps/own.lua", "-o", "his", "--json"]);
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    let submitted: Value = serde_json::from_slice(&submitted.stdout).expect("JSON");
    let job = submitted["arrays"][0]["job_id"].as_u64().expect("a number");
    let shown = cluster.slurm("squeue", &["--noheader", "--states=all", "--format=%u", &format!("--jobs={job}")]);
    assert!(shown.lines().all(|line| line.trim() == user.name) && !shown.is_empty(), "{shown}");

    cluster.wait("everything merged", || {
        let status = user.energylens(cluster, &["status", "his", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["missing"] == 0 && status["tasks"].as_array().is_some_and(Vec::is_empty)
    });
    let campaign = user.desk.join("his");
    let mut said = String::new();
    each_file(&campaign, &mut |path| {
        let owner = fs::symlink_metadata(path).expect("a file").uid();
        assert_eq!(owner, user.id, "{} belongs to somebody else", path.display());
        if path.extension().is_some_and(|e| e == "log") {
            said.push_str(&fs::read_to_string(path).unwrap_or_default());
        }
    });
    for batch in [1, 2] {
        assert!(said.contains(&format!("batch of {batch} for {}\n", user.name)), "{said}");
    }
    let journal = fs::read_to_string(campaign.join("runs.jsonl")).expect("a journal");
    assert_eq!(journal.matches("\"status\":\"done\"").count(), 2, "{journal}\n{said}");
}
