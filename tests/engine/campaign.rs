//! A sweep over the engine, and what is in its campaign afterwards.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use energylens::schema::{PHASES, RUNS};
use energylens::store::{RunRow, columns, read_table};
use serde_json::Value;

use crate::machine::{Machine, signal};
use crate::support::desk::{Desk, Ran, program};
use crate::support::nvml::Stub;

/// What the stub's one GPU draws, and how often its counter moves.
const STUB: &str = "devices 1, 0.name STUB, 0.ramp_mw 100000, 0.refresh_ms 20";

/// A script, its desk and a stub driver.
pub(crate) struct Sweep<'a> {
    machine: &'a Machine,
    desk: Desk,
    stub: Stub,
    workload: String,
    axes: String,
    more: String,
}

/// A row of `phases`, as far as tests look.
#[derive(Debug)]
pub(crate) struct PhaseEnergy {
    pub(crate) phase: String,
    pub(crate) mean_power_w: f64,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(machine: &'a Machine) -> Self {
        let (desk, stub) = (Desk::new(), Stub::new(STUB));
        Self { machine, desk, stub, workload: String::new(), axes: String::new(), more: String::new() }
    }

    /// On servers that the sweep starts.
    pub(crate) fn server(mut self, options: &[&str], more: &str) -> Self {
        let mut words = self.machine.words("{port}");
        words[2] = "{model_path}".to_owned();
        words.extend(["--slots", "{max_batch_size}", "--cache-tokens", "{cache_tokens}"].map(str::to_owned));
        words.extend(options.iter().map(|o| (*o).to_owned()));
        let mut argv = String::new();
        for word in words {
            write!(argv, "{word:?}, ").expect("text grows");
        }
        let model = self.machine.model.display();
        self.workload = format!(
            "el.server {{ engine = 'llama.cpp', gpus = 1, argv = {{ {argv} }}, {more} ready_timeout_s = 120,\n\
             model_paths = {{ ['lab/tiny'] = '{model}' }}, request = {{ cache_prompt = false }} }}"
        );
        self
    }

    /// On a server that is there.
    pub(crate) fn running(mut self, url: &str) -> Self {
        self.workload = format!(
            "el.server {{ engine = 'llama.cpp', gpus = 1, url = '{url}', request = {{ cache_prompt = false }} }}"
        );
        self
    }

    pub(crate) fn axes(mut self, axes: &str) -> Self {
        self.axes = axes.to_owned();
        self
    }

    /// With more fields of the sweep. Only tests/slurm.rs has any.
    #[allow(dead_code)]
    pub(crate) fn with(mut self, fields: &str) -> Self {
        self.more = fields.to_owned();
        self
    }

    /// Where the stub lies, for `$LD_LIBRARY_PATH`. Only tests/slurm.rs asks.
    #[allow(dead_code)]
    pub(crate) fn stub_directory(&self) -> &Path {
        self.stub.path()
    }

    /// The script.
    pub(crate) fn script(&self) -> String {
        format!(
            "local el = require 'energylens'\n\
             return el.sweep {{\n\
             name = 'engine', design = el.factorial {{}}, {} workload = {},\n\
             measure = {{ min_window_s = 1, idle_s = 0.1, warmup_batches = 1 }},\n\
             axes = {{ {}, input_tokens = 96, output_tokens = el.choice {{ 1, 12 }},\n\
             model = {{ model = 'lab/tiny', params = 2.9e6, n_layers = 4, hidden_size = 128, kv_bytes_per_token = 2048 }},\n\
             gpu_model = {{ gpu_model = 'stub', vendor = 'nvidia', memory_bytes = 8e9, peak_flops = 1e12, power_limit_w = 300,\n\
             memory_bandwidth_bytes_per_s = 1e10, link_bandwidth_bytes_per_s = 1e9, idle_power_w = 50 }} }} }}\n",
            self.more, self.workload, self.axes
        )
    }

    /// Writes the script; what the program gets to carry it out.
    fn arguments(&self) -> Vec<String> {
        self.desk.put("sweep.lua", self.script());
        let library = self.stub.library();
        let library = library.to_str().expect("a path of text");
        let arguments = ["run", "sweep.lua", "-o", "campaign", "--json", "--sysfs-root", "no-sysfs", "--nvml-library"];
        arguments.into_iter().chain([library]).map(str::to_owned).collect()
    }

    /// Runs it, or what is left of it.
    pub(crate) fn run(&self) -> Ran {
        self.desk.run(&self.arguments())
    }

    /// Lets it run.
    pub(crate) fn start(&self) -> Child {
        let mut program = Command::new(program());
        program.args(self.arguments()).current_dir(self.desk.path("."));
        program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program")
    }

    /// The number of the server that is up.
    pub(crate) fn server_id(&self) -> Option<String> {
        let note = std::fs::read_to_string(self.campaign().join("logs/server.running")).ok()?;
        note.split(' ').next().filter(|id| !id.is_empty()).map(str::to_owned)
    }

    /// Waits until the server that is up has served something.
    pub(crate) fn await_served(&self) {
        for _ in 0..2400 {
            sleep(Duration::from_millis(25));
            let has_served = self.server_id().is_some()
                && self
                    .logs()
                    .last()
                    .and_then(|log| std::fs::read_to_string(log).ok())
                    .is_some_and(|text| text.contains("prompt eval time"));
            if has_served {
                return;
            }
        }
        panic!("no server has served anything");
    }

    /// Runs it to its end without a failed run; what was measured may be uncertain on a busy machine.
    pub(crate) fn run_whole(&self) -> Value {
        let ran = self.run();
        assert!(matches!(ran.code, Some(0 | 3)), "{:?}\n{}", ran.code, ran.stderr);
        let json = ran.json();
        assert_eq!((json["failed"].as_u64(), json["left"].as_u64()), (Some(0), Some(0)), "{}", ran.stderr);
        json
    }

    pub(crate) fn campaign(&self) -> PathBuf {
        self.desk.path("campaign")
    }

    /// Logs of its servers.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.campaign().join("logs")).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> =
            entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        logs
    }

    /// Kills the first server as soon as it has served something.
    pub(crate) fn kill_first_server(&self) {
        self.await_served();
        signal("-KILL", &self.server_id().expect("a server"));
    }
}

/// The campaign's runs.
pub(crate) fn runs(campaign: &Path) -> Vec<RunRow> {
    let batches = read_table(campaign, &RUNS).expect("the table runs");
    batches.flat_map(|batch| RunRow::from_batch(&batch.expect("rows")).expect("runs")).collect()
}

/// The campaign's phase energies.
pub(crate) fn phases(campaign: &Path) -> Vec<PhaseEnergy> {
    let mut found = Vec::new();
    for batch in read_table(campaign, &PHASES).expect("the table phases") {
        let batch = batch.expect("rows");
        let phase = columns::text(&batch, "phase").expect("phases");
        let power = columns::f64s(&batch, "mean_power_w").expect("watts");
        for row in 0..batch.num_rows() {
            let phase = columns::text_at(&phase, row).expect("a phase").to_owned();
            found.push(PhaseEnergy { phase, mean_power_w: columns::value(&power, row).unwrap_or(0.0) });
        }
    }
    found
}
