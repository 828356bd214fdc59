//! `doctor`, `agent` and `record` against a stub of NVIDIA's library and a fake powercap tree.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use energylens::schema::{MARKS, SAMPLES};
use energylens::store::read_table;
use serde_json::Value;

use crate::support::desk::{Desk, Ran, program};
use crate::support::nvml::Stub;
use crate::support::powercap::Powercap;

/// Two GPUs whose counters rise by themselves, at 250 and 100 W.
const TWO_GPUS: &str = "devices 2, 0.ramp_mw 250000, 0.refresh_ms 20, 1.ramp_mw 100000, 1.refresh_ms 100";

fn with_gpus(desk: &Desk, stub: &Stub, verb: &str, rest: &[&str]) -> Ran {
    let library = stub.library();
    let library = library.to_str().expect("a path of text");
    let mut arguments = vec![verb, "--nvml-library", library, "--sysfs-root", "no-sysfs"];
    arguments.extend(rest);
    desk.run(&arguments)
}

fn with_cpu(desk: &Desk, tree: &Powercap, verb: &str, rest: &[&str]) -> Ran {
    let root = tree.root().to_str().expect("a path of text");
    let mut arguments = vec![verb, "--nvml-library", "no-library.so", "--sysfs-root", root];
    arguments.extend(rest);
    desk.run(&arguments)
}

/// The JSON that `record` prints on stderr, stdout being the command's.
fn recorded(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stderr).unwrap_or_else(|e| panic!("{}: {e}\n{}", ran.line, ran.stderr))
}

#[test]
fn doctor_tells_what_can_be_measured_and_what_cannot() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    let ran = with_gpus(&desk, &stub, "doctor", &["--duration", "1s"]).done();
    ran.prints("NVIDIA GPUs (NVML): 2 GPUs by energy counter")
        .prints("no-sysfs/class/powercap cannot be listed")
        .prints("All 2 energy counters move")
        .prints("% of one core, phase-locked polling");
    let json = with_gpus(&desk, &stub, "doctor", &["--duration", "500ms", "--json"]).done().json();
    assert_eq!(json["devices"].as_array().map(Vec::len), Some(2));
    assert!(json["watched"][0]["edges"].as_u64() > Some(3), "{}", json["watched"]);
    let first = &json["watched"][0];
    let (period_s, power_w) = (first["refresh"]["period_s"].as_f64(), first["counter_power_w"].as_f64());
    assert!(period_s.is_some_and(|s| (0.015..0.1).contains(&s)), "20 ms on an idle machine: {first}");
    assert!(power_w.is_some_and(|w| (w / 250.0 - 1.0).abs() < 0.2), "{first}");
    // The counter rises by whole millijoules.
    assert!(first["resolution_uj"].as_u64().is_some_and(|uj| uj % 1_000 == 0), "{first}");
    assert!(json["fixed_cpu_share"].as_f64().is_some_and(|share| share > 0.0), "{json}");
    assert!(json["reads_in_turn_s"].is_null() || json["reads_at_once_s"].is_f64(), "{json}");
    let nothing = desk.type_in("doctor --nvml-library no-library.so --sysfs-root no-sysfs").done();
    nothing.prints("install the NVIDIA driver").prints("`energylens demo` shows the program");
}

#[test]
fn agent_records_for_as_long_as_it_is_told() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    let json = with_gpus(&desk, &stub, "agent", &["-o", "rec", "--duration", "2s", "--json"]).done().json();
    assert_eq!((json["lost_rows"].as_u64(), json["write_errors"].as_u64()), (Some(0), Some(0)), "{json}");
    // Two seconds of 20 ms and of 100 ms make 120 edges; a busy machine sees fewer, or stops later.
    let edges = json["edges"].as_u64().expect("a count");
    assert!((12..=240).contains(&edges), "{edges}");
    let file = json["files"][0].as_str().expect("a sealed file").to_owned();
    assert!(desk.path(&file).is_file() && file.ends_with("-000000.parquet"), "{file}");
    // The same directory again: another segment, nothing overwritten.
    with_gpus(&desk, &stub, "agent", &["-o", "rec", "--duration", "300ms"]).done().prints("none lost");
    assert!(desk.path(&file.replace("-000000.parquet", "-000001.parquet")).is_file());
}

#[test]
fn agent_with_nothing_to_read_fails_with_every_reason() {
    let desk = Desk::new();
    let ran = desk.type_in("agent -o rec --nvml-library no-library.so --sysfs-root no-sysfs").ends_with(1);
    ran.remarks("no energy counter can be read here")
        .remarks("install the NVIDIA driver")
        .remarks("modprobe intel_rapl_msr");
    let stub = Stub::new(TWO_GPUS);
    let ran = with_gpus(&desk, &stub, "agent", &["-o", "rec", "--sources", "rapl"]).ends_with(1);
    ran.remarks("no energy counter of rapl can be read here");
}

#[test]
fn record_measures_a_command_and_passes_its_exit_status_on() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    let ran =
        with_gpus(&desk, &stub, "record", &["--json", "--", "sh", "-c", "echo result; sleep 1; exit 7"]).ends_with(7);
    assert_eq!(ran.stdout, "result\n", "stdout belongs to the command");
    let json = recorded(&ran);
    let seconds = json["duration_s"].as_f64().expect("a duration");
    for (device, power_w) in [(0, 250.0), (1, 100.0)] {
        let device = &json["devices"][device];
        let (energy_j, std_j) =
            (device["energy_j"].as_f64().expect("joules"), device["energy_j_std"].as_f64().expect("±"));
        let truth_j = power_w * seconds;
        assert!((energy_j - truth_j).abs() < 5.0 * std_j + 0.02 * truth_j, "{energy_j} ± {std_j}, not {truth_j}");
        assert!(std_j < 0.1 * truth_j, "± {std_j} of {truth_j}");
    }
    assert_eq!(json["recording"]["files"], Value::Array(Vec::new()), "the recording was not to be kept");
}

#[test]
fn record_says_which_commands_it_could_not_run() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    desk.put("not-a-program", "text");
    with_gpus(&desk, &stub, "record", &["--", "sh", "-c", "kill -9 $$"]).ends_with(137);
    with_gpus(&desk, &stub, "record", &["--", "no-such-command"])
        .ends_with(127)
        .remarks("cannot run `no-such-command`");
    with_gpus(&desk, &stub, "record", &["--", "./not-a-program"]).ends_with(126).remarks("Permission denied");
    let short = with_gpus(&desk, &stub, "record", &["--", "true"]).done();
    short.remarks("the command is too short for these counters");
    with_gpus(&desk, &stub, "record", &["-o", "kept", "--", "true"]).done();
    assert!(desk.path("kept/campaign.json").is_file());
}

#[test]
fn doctor_names_the_counter_that_stands_still() {
    let (desk, stub) = (Desk::new(), Stub::new("devices 1, 0.energy_mj 1000000, 0.power_mw 300000"));
    let ran = with_gpus(&desk, &stub, "doctor", &["--duration", "400ms"]).done();
    ran.prints("0 of 1 energy counters are in order").prints("the counter did not move").prints("nvidia-smi -pm 1");
}

#[test]
fn record_repeats_a_command_and_lists_every_run() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    let arguments =
        ["--json", "--repeat", "3", "--warmup", "1", "--idle", "500ms", "--", "sh", "-c", "echo x; sleep 0.6"];
    let ran = with_gpus(&desk, &stub, "record", &arguments).done();
    assert_eq!(ran.stdout, "x\nx\nx\nx\n", "one to warm up, three that count");
    let json = recorded(&ran);
    let runs = json["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 3, "{json}");
    assert!(runs.iter().all(|r| r["exit_status"] == 0 && r["devices"].as_array().is_some_and(|d| d.len() == 2)));
    let of = |run: &Value| run["devices"][0]["energy_j"].as_f64().expect("joules");
    let mean_j = runs.iter().map(of).sum::<f64>() / 3.0;
    let device = &json["devices"][0];
    assert!((device["energy_j"].as_f64().expect("joules") / mean_j - 1.0).abs() < 1e-9, "{json}");
    assert!(device["energy_j_sd"].is_f64(), "{json}");
    // The stub draws the same whether anything runs or not: nothing is left above idle but uncertainty.
    let above_j = device["above_idle_j"].as_f64().expect("joules");
    assert!(above_j.abs() < 0.2 * mean_j, "{above_j} of {mean_j}");
    let total = json["totals"][0]["energy_j"].as_f64().expect("both GPUs");
    assert!((total / (mean_j * 1.4) - 1.0).abs() < 0.2, "250 W and 100 W: {total}, not 1.4 times {mean_j}");
}

#[test]
fn record_stops_at_the_first_failure_unless_told_otherwise() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    let fails_second = "echo run >> log; [ $(wc -l < log) != 2 ]";
    let ran = with_gpus(&desk, &stub, "record", &["--repeat", "3", "--", "sh", "-c", fails_second]).ends_with(1);
    ran.remarks("stopped after 2 of 3 runs").remarks("1 of 2 runs failed; left out of the means");
    assert_eq!(desk.text("log").lines().count(), 2);
    let desk = Desk::new();
    let arguments = ["--repeat", "3", "--ignore-failure", "--summary", "out.txt", "--", "sh", "-c", fails_second];
    let ran = with_gpus(&desk, &stub, "record", &arguments).done();
    assert_eq!((desk.text("log").lines().count(), ran.stderr.as_str()), (3, ""));
    assert!(desk.text("out.txt").contains("1 of 3 runs failed; they are counted"), "{}", desk.text("out.txt"));
}

#[test]
fn a_signal_reaches_the_command_and_its_joules_are_printed() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    // The command tells its parent to end, as a batch system would, and says what arrived at itself.
    let command = "trap 'echo told; exit 9' TERM; kill -TERM $PPID; sleep 5 & wait; wait";
    let ran = with_gpus(&desk, &stub, "record", &["--repeat", "4", "--", "sh", "-c", command]).ends_with(9);
    assert_eq!(ran.stdout, "told\n");
    ran.remarks("stopped after 1 of 4 runs").remarks("energy J");
}

#[test]
fn record_hands_stdin_to_the_command() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    desk.put("in.txt", "three\nlines\nhere\n");
    let program = format!(
        "{} record --nvml-library {} --sysfs-root none -- wc -l < in.txt",
        crate::support::desk::program().display(),
        stub.library().display()
    );
    let output =
        std::process::Command::new("sh").args(["-c", &program]).current_dir(desk.path("")).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3", "{output:?}");
}

#[test]
fn top_prints_one_view_without_a_terminal_and_says_so_otherwise() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    with_gpus(&desk, &stub, "top", &["--once"]).done().prints("energylens top").prints("2 GPUs").prints("a read takes");
    with_gpus(&desk, &stub, "top", &[]).ends_with(1).remarks("`energylens top --once` prints one view");
}

#[test]
fn top_leaves_at_q_and_hands_the_terminal_back() {
    let (desk, stub) = (Desk::new(), Stub::new(TWO_GPUS));
    if !std::path::Path::new("/usr/bin/script").exists() {
        eprintln!("skipped: util-linux' script, which makes a terminal, is not here");
        return;
    }
    let program = crate::support::desk::program().display().to_string();
    let line = format!(
        "(sleep 3; printf q; sleep 20) | script -qec 'stty rows 24 cols 80; {program} top --nvml-library {} --sysfs-root none; echo left with $?' \
         /dev/null",
        stub.library().display()
    );
    let mut child = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(desk.path(""))
        .env("TERM", "xterm")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    let mut screen = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().expect("a pipe"), &mut screen).expect("text");
    child.wait().expect("it ends");
    // To the alternate screen, and back from it.
    assert!(screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"), "{screen:?}");
    assert!(screen.contains("energylens") && screen.contains("left with 0"), "{screen:?}");
}

#[test]
fn a_cpu_package_is_measured_through_powercap() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    with_cpu(&desk, &tree, "doctor", &["--duration", "300ms"]).done().prints("1 CPU package, 1 memory domain");
    let ran = with_cpu(&desk, &tree, "record", &["--json", "--", "sleep", "1"]).done();
    let json = recorded(&ran);
    let package = json["devices"].as_array().and_then(|d| d.iter().find(|d| d["device"] == "rapl:package-0"));
    let package = package.unwrap_or_else(|| panic!("no package in {json}"));
    let (power_w, energy_j) = (package["mean_power_w"].as_f64().expect("W"), package["energy_j"].as_f64().expect("J"));
    assert!((power_w / 120.0 - 1.0).abs() < 0.05, "{power_w} W, {energy_j} J");
}

#[test]
fn whatever_simulated_gpus_gave_is_labelled() {
    let desk = Desk::new();
    desk.type_in("record --sources sim -- sleep 0.2").done().remarks("[simulated]");
    desk.type_in("agent --sources sim -o rec --duration 1s").done().prints("[simulated]");
    desk.type_in("top --once --sources sim").done().prints("[simulated]");
    desk.type_in("doctor --sources sim --duration 500ms").done().prints("nothing is measured");
}

#[test]
fn every_row_of_a_job_knows_the_job() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let root = tree.root().to_str().expect("a path of text");
    let mark = format!("{} mark begin prefill && sleep 0.3", program().display());
    let recorded = std::process::Command::new(program())
        .args(["record", "--nvml-library", "no-library.so", "--sysfs-root", root, "-o", "rec", "--", "sh", "-c", &mark])
        .current_dir(desk.path(""))
        .envs([("SLURM_JOB_ID", "4242"), ("SLURM_STEP_ID", "7")])
        .output()
        .expect("the program");
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    for table in [&SAMPLES, &MARKS] {
        let batches: Vec<_> = read_table(&desk.path("rec"), table).expect("a campaign").flatten().collect();
        let jobs: Vec<Option<String>> = batches
            .iter()
            .flat_map(|batch| {
                let column = cast(batch.column_by_name("job_id").expect("job_id"), &DataType::Utf8).expect("text");
                column.as_string::<i32>().iter().map(|job| job.map(str::to_owned)).collect::<Vec<_>>()
            })
            .collect();
        assert!(!jobs.is_empty() && jobs.iter().all(|job| job.as_deref() == Some("4242")), "{}: {jobs:?}", table.name);
    }
}
