//! What `agent` keeps: killed at any moment, told to reopen, short of space.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use energylens::schema::{SAMPLES, TELEMETRY};
use energylens::store::{SampleRow, read_metadata, read_table, table_files};

use crate::support::desk::{Desk, program};
use crate::support::powercap::Powercap;

/// An agent in `desk`'s directory `rec`, with these further arguments.
fn agent(desk: &Desk, tree: &Powercap, rest: &[&str]) -> Child {
    Command::new(program())
        .args(["agent", "-o", "rec", "--sources", "rapl", "--sysfs-root"])
        .arg(tree.root())
        .args(rest)
        .current_dir(desk.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program")
}

/// Waits for as long as the child lives and a busy machine may need.
fn wait_until(child: &mut Child, what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        assert!(child.try_wait().expect("a child").is_none(), "the agent ended before {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("a minute has passed without {what}");
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

/// Rows of the recording, spools included.
fn instants(dir: &Path) -> Vec<(String, i64)> {
    let batches = read_table(dir, &SAMPLES).expect("a readable directory");
    // A spool may be sealed and removed between being listed and being opened; then its rows are counted next time.
    let rows = batches.flatten().flat_map(|b| SampleRow::from_batch(&b).expect("samples"));
    rows.map(|r| (r.device.to_string(), r.t_mono_ns)).collect()
}

fn sealed(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map(|e| e.flatten().map(|e| e.path()).collect::<Vec<_>>()).unwrap_or_default();
    let mut paths: Vec<_> = entries.into_iter().filter(|p| p.extension().is_some_and(|e| e == "parquet")).collect();
    paths.sort();
    paths
}

#[test]
fn an_agent_killed_at_any_moment_leaves_files_that_open_and_the_next_one_loses_nothing_of_them() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let dir = desk.path("rec");
    let mut kept: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    // Segments of a few kilobytes, so that many of the kills meet a rotation.
    let arguments = ["--resolution", "1ms", "--rotate-size", "4KiB", "--rotate-every", "1s"];
    for (round, wait_ms) in [0, 13, 37, 171, 390, 741].into_iter().enumerate() {
        let mut child = agent(&desk, &tree, &arguments);
        let before = instants(&dir_or_empty(&dir)).len();
        wait_until(&mut child, "new rows", || dir.exists() && instants(&dir).len() > before + 100);
        std::thread::sleep(Duration::from_millis(wait_ms));
        let flushed = instants(&dir);
        child.kill().expect("a child");
        child.wait().expect("a child");

        // Whatever the kill met, every sealed file is whole.
        for path in sealed(&dir) {
            read_metadata(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        let ran = desk.run(&[
            "agent",
            "-o",
            "rec",
            "--sources",
            "rapl",
            "--sysfs-root",
            tree.root().to_str().expect("text"),
            "--duration",
            "50ms",
        ]);
        let ran = ran.done();
        assert!(
            table_files(&dir, &SAMPLES).expect("files").iter().all(|p| p.extension().is_some_and(|e| e == "parquet"))
        );
        assert!(
            fs::read_dir(&dir).expect("files").flatten().all(|e| !e.file_name().to_string_lossy().ends_with(".tmp"))
        );
        let after = instants(&dir);
        let mut sorted = after.clone();
        sorted.sort();
        let lost: Vec<_> = flushed.iter().filter(|row| sorted.binary_search(row).is_err()).collect();
        assert!(lost.is_empty(), "round {round}: {} flushed rows are lost; {}", lost.len(), ran.stderr);
        sorted.dedup();
        assert_eq!(sorted.len(), after.len(), "round {round}: rows are there twice");
        for (path, bytes) in &kept {
            assert_eq!(&fs::read(path).expect("an earlier file"), bytes, "{} has changed", path.display());
        }
        kept = sealed(&dir).into_iter().map(|p| (p.clone(), fs::read(p).expect("a file"))).collect();
    }
}

fn dir_or_empty(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).expect("a directory");
    dir.to_owned()
}

#[test]
fn a_hangup_seals_the_segment_and_term_ends_the_agent_well() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let dir = desk.path("rec");
    let mut child = agent(&desk, &tree, &["--json"]);
    for reopened in 1..=2 {
        wait_until(&mut child, "rows to seal", || dir.exists() && instants(&dir).len() > 50 * reopened);
        let before = sealed(&dir).len();
        signal(&child, "-HUP");
        wait_until(&mut child, "a sealed segment", || sealed(&dir).len() > before);
    }
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("a child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("as asked; going on in a new segment"), "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert!(json["sealed_files"].as_u64() >= Some(3), "{json}");
    assert_eq!(json["pauses"]["count"].as_u64(), Some(0));
    assert_eq!(json["rows"].as_u64(), Some(instants(&dir).len() as u64));
}

#[test]
fn an_agent_keeps_to_its_budget_and_removes_nothing_of_others() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let dir = desk.path("rec");
    // Recorded by `record`: on this host, under the same names, and not the agent's to remove.
    let root = tree.root().to_str().expect("text").to_owned();
    desk.run(&["record", "-o", "rec", "--sources", "rapl", "--sysfs-root", &root, "--", "true"]).done();
    let foreign = sealed(&dir);
    assert!(!foreign.is_empty());
    let budget = ["--json", "--rotate-size", "4KiB", "--keep-at-most", "16KiB", "--rotate-every", "1s"];
    let mut child = agent(&desk, &tree, &budget);
    wait_until(&mut child, "removals", || {
        let numbers = sealed(&dir);
        numbers.last().is_some_and(|last| last.to_string_lossy().contains("-00000") && numbers.len() > 1)
            && !sealed(&dir).iter().any(|p| p.to_string_lossy().ends_with("-000001.parquet"))
            && sealed(&dir).iter().any(|p| p.to_string_lossy().ends_with("-000003.parquet"))
    });
    signal(&child, "-INT");
    let output = child.wait_with_output().expect("a child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("removed") && stderr.contains("more than is kept"), "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert!(json["removed"]["files"].as_u64() >= Some(1), "{json}");
    assert!(foreign.iter().all(|p| p.exists()), "{foreign:?}");
    assert!(table_files(&dir, &TELEMETRY).expect("files").is_empty(), "powercap has no telemetry");
    let taken: u64 =
        sealed(&dir).iter().filter(|p| !foreign.contains(p)).map(|p| fs::metadata(p).expect("a file").len()).sum();
    assert!(taken <= 16 * 1024, "{taken} bytes");
}

#[test]
fn a_budget_that_no_segment_fits_is_refused_before_anything_is_recorded() {
    let desk = Desk::new();
    let ran = desk.type_in("agent -o rec --rotate-size 64MiB --keep-at-most 100MiB").ends_with(1);
    ran.remarks("expected at most half of it");
    assert!(!desk.path("rec").exists());
    desk.type_in("agent -o rec --keep-for 30").ends_with(2).remarks("is no duration such as 90s, 1h or 30d");
    desk.type_in("agent -o rec --min-free lots").ends_with(2).remarks("expected such as 64MiB");
}

/// A limit on the size of files stands for a disk that is full: writes fail in the middle, new files take rows again.
#[test]
fn an_agent_whose_files_cannot_grow_goes_on_in_new_ones_and_loses_nothing() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let script = format!(
        "trap '' XFSZ; ulimit -f 300; exec {} agent -o rec --sources rapl --sysfs-root {} --duration 6s --json",
        program().display(),
        tree.root().display()
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(desk.path(".")).output().expect("sh");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!(json["lost_rows"].as_u64(), Some(0), "{json}");
    let pauses = json["pauses"]["count"].as_u64().expect("a count");
    assert_eq!(stderr.matches("recording pauses").count() as u64, pauses, "{stderr}");
    // 300 blocks are 150 or 300 KiB; a row takes at least 33 bytes of a spool.
    assert!(json["rows"].as_u64() < Some(10_000) || pauses >= 1, "{json}");
    assert!(pauses == 0 || stderr.contains("File too large"), "{stderr}");
    assert_eq!(json["rows"].as_u64(), Some(instants(&desk.path("rec")).len() as u64));
}
