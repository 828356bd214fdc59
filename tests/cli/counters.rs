//! `doctor`, `agent` and `record` against a stub of NVIDIA's library and a fake powercap tree.

use serde_json::Value;

use crate::support::desk::{Desk, Ran};
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
        .prints("one read costs");
    let json = with_gpus(&desk, &stub, "doctor", &["--duration", "500ms", "--json"]).done().json();
    assert_eq!(json["devices"].as_array().map(Vec::len), Some(2));
    assert!(json["watched"][0]["edges"].as_u64() > Some(3), "{}", json["watched"]);
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
