//! Promises: what recording costs beside a bare C loop that makes the same driver calls, how sharp edges are, how much
//! memory and disk it takes, and that a disk that is full for five seconds costs no row.
//!
//! Both programs run against the same stand-in for NVML, which answers at once (`driver.c`), one after the other in one
//! process tree. Processor time is the kernel's (`wait4`). Each program runs for a short and a long time, and the
//! difference counts, so that starting up and sealing do not hide in it. Run with `cargo bench --bench agent`, or with
//! `-- --seconds 60` for calmer figures; the simulated day alone with `-- --soak`.

mod soak;

use std::path::{Path, PathBuf};
use std::process::Command;

use energylens::agent::Recording;
use energylens::schema::SAMPLES;
use energylens::store::{SampleRow, read_table};
use tempfile::TempDir;

/// The short run: enough to learn all periods.
const WARM_UP_S: u64 = 4;
/// Refresh periods of the eight devices, us: what is known of real counters lies between 20 and 100 ms.
const MIXED: &str = "20000,20000,25000,33000,50000,66000,80000,100000";

struct Bench {
    dir: TempDir,
    seconds: u64,
    missed: u32,
}

/// What a program cost over a while, and what it recorded.
struct Cost {
    cpu_share: f64,
    rss_mib: f64,
    recording: Option<(Recording, PathBuf)>,
    /// Bytes that a further row adds to the files: headers and footers of a short recording would be half of them.
    bytes_per_row: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--soak") {
        return soak::a_day();
    }
    let seconds = arguments.iter().skip_while(|a| *a != "--seconds").nth(1).and_then(|s| s.parse().ok()).unwrap_or(15);
    let dir = TempDir::new().expect("a temporary directory");
    let mut bench = Bench { dir, seconds, missed: 0 };
    bench.build();
    bench.polling();
    bench.blocking();
    bench.refused();
    println!("\n{} of the promises missed", bench.missed);
    soak::a_day();
    std::process::exit(i32::from(bench.missed > 0));
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build(&self) {
        for (source, target, flags) in [
            ("driver.c", "libnvidia-ml.so.1", &["-shared", "-fPIC"][..]),
            ("loop.c", "loop", &[]),
            ("measure.c", "measure", &[]),
        ] {
            let status = Command::new("cc")
                .args(["-O2", "-o"])
                .arg(self.path(target))
                .args(flags)
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/agent").join(source))
                .arg("-ldl")
                .status();
            assert!(status.is_ok_and(|s| s.success()), "cc cannot build {source}");
        }
    }

    /// Runs a command under `measure`; gives processor seconds, peak memory and what it printed.
    fn measure(&self, driver: &[(&str, &str)], refuse: (u64, u64), command: &[String]) -> (f64, f64, String) {
        let output = Command::new(self.path("measure"))
            .args([refuse.0.to_string(), refuse.1.to_string()])
            .args(command)
            .envs(driver.iter().copied())
            .output()
            .expect("measure runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let figures = said.lines().rev().find_map(|l| l.strip_prefix("measured ")).expect("measure's last line");
        let mut figures = figures.split(' ').map(|f| f.parse::<f64>().expect("a number"));
        let mut next = || figures.next().expect("three numbers");
        let (cpu_ns, rss_kib, status) = (next(), next(), next());
        assert!(status == 0.0, "{command:?}: {said}");
        (cpu_ns / 1e9, rss_kib / 1024.0, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn bare_loop(&self, driver: &[(&str, &str)]) -> Cost {
        let run = |seconds: u64| {
            let text = |p: PathBuf| p.to_string_lossy().into_owned();
            let command = [text(self.path("loop")), text(self.path("libnvidia-ml.so.1")), seconds.to_string()];
            self.measure(driver, (0, 0), &command)
        };
        let ((short_s, ..), (long_s, rss_mib, _)) = (run(WARM_UP_S), run(WARM_UP_S + self.seconds));
        Cost { cpu_share: (long_s - short_s) / self.seconds as f64, rss_mib, recording: None, bytes_per_row: f64::NAN }
    }

    fn agent(&self, driver: &[(&str, &str)], cadence: &[&str]) -> Cost {
        let (short_s, _, (short, _)) = self.record(driver, cadence, WARM_UP_S, (0, 0));
        let short_bytes = bytes(&short);
        let (long_s, rss_mib, (long, campaign)) = self.record(driver, cadence, WARM_UP_S + self.seconds, (0, 0));
        Cost {
            cpu_share: (long_s - short_s) / self.seconds as f64,
            rss_mib,
            bytes_per_row: (bytes(&long) - short_bytes) / (long.rows as f64 - short.rows as f64).max(1.0),
            recording: Some((long, campaign)),
        }
    }

    fn record(
        &self,
        driver: &[(&str, &str)],
        cadence: &[&str],
        seconds: u64,
        refuse: (u64, u64),
    ) -> (f64, f64, (Recording, PathBuf)) {
        let campaign = self.path("recording");
        let _ = std::fs::remove_dir_all(&campaign);
        let library = self.path("libnvidia-ml.so.1");
        let mut command: Vec<String> =
            ["agent", "--sources", "nvml", "--json", "--duration"].iter().map(|s| (*s).to_owned()).collect();
        command.insert(0, env!("CARGO_BIN_EXE_energylens").to_owned());
        command.push(format!("{seconds}s"));
        command.extend(["--nvml-library".to_owned(), library.to_string_lossy().into_owned()]);
        command.extend(["-o".to_owned(), campaign.to_string_lossy().into_owned()]);
        command.extend(cadence.iter().map(|c| (*c).to_owned()));
        let (cpu_s, rss_mib, printed) = self.measure(driver, refuse, &command);
        (cpu_s, rss_mib, (serde_json::from_str(&printed).expect("a summary"), campaign))
    }

    /// Promises of processor time, memory and disk against a driver that answers at once.
    fn polling(&mut self) {
        println!("8 devices, a driver that answers at once, {} s each:\n", self.seconds);
        println!("  {:44} {:>9} {:>7} {:>9}", "", "% of core", "ratio", "RSS MiB");
        let quick = [("EL_DRIVER_REFRESH_US", MIXED)];
        let bare = self.bare_loop(&quick);
        let row = |name: &str, cost: &Cost| {
            let ratio = cost.cpu_share / bare.cpu_share;
            println!("  {name:44} {:>9.2} {ratio:>7.2} {:>9.1}", 100.0 * cost.cpu_share, cost.rss_mib);
            ratio
        };
        row("bare C loop, 1 kHz", &bare);
        let fixed = self.agent(&quick, &["--poll-hz", "1000"]);
        let fixed_ratio = row("agent --poll-hz 1000", &fixed);
        let fixed_edges = sharpness(&fixed);
        let mut locked_ratios: Vec<(String, f64)> = Vec::new();
        let mut rss_mib = fixed.rss_mib;
        for (name, refresh_us) in [("20", "20000"), ("50", "50000"), ("100", "100000"), ("20 to 100", MIXED)] {
            let locked = self.agent(&[("EL_DRIVER_REFRESH_US", refresh_us)], &["--resolution", "1ms"]);
            let ratio = row(&format!("agent, counters refreshing every {name} ms"), &locked);
            rss_mib = rss_mib.max(locked.rss_mib);
            locked_ratios.push((format!("{name} ms"), ratio));
            if refresh_us == MIXED {
                let edges = sharpness(&locked);
                println!("\n  edges, fixed rate:   {fixed_edges}\n  edges, phase-locked: {edges}\n");
                self.judge("as sharp", edges.sharp_share + 0.02 >= fixed_edges.sharp_share);
                self.judge(&format!("at most 6 bytes per row: {:.2}", edges.bytes_per_row), edges.bytes_per_row <= 6.0);
            }
        }
        self.judge(&format!("fixed rate at most 1.5 of the loop: {fixed_ratio:.2}"), fixed_ratio <= 1.5);
        // A driver that answers at once leaves nothing but the wake-ups, and two per edge cannot be saved. Calls of real
        // drivers take 2.5 us (NVML's quickest on an RTX 4090) and upwards.
        for burn_ns in ["2500", "20000"] {
            let driver = [("EL_DRIVER_REFRESH_US", MIXED), ("EL_DRIVER_BURN_NS", burn_ns)];
            let bare = self.bare_loop(&driver);
            let locked = self.agent(&driver, &["--resolution", "1ms"]);
            let us = burn_ns.parse::<f64>().unwrap_or(0.0) / 1e3;
            println!("  bare C loop, {us} us a call: {:.2} % of a core", 100.0 * bare.cpu_share);
            println!("  agent, phase-locked, the same: {:.2} %", 100.0 * locked.cpu_share);
            locked_ratios.push((format!("20 to 100 ms, {us} us a call"), locked.cpu_share / bare.cpu_share));
        }
        for (name, ratio) in locked_ratios {
            self.judge(&format!("phase-locked, {name}: at most 0.2 of the loop: {ratio:.2}"), ratio <= 0.2);
        }
        self.judge(&format!("memory below 25 MiB: {rss_mib:.1}"), rss_mib < 25.0);
    }

    /// Promise: reads that block for 200 us leave edges at 1 ms, at 10 % of a core or less.
    fn blocking(&mut self) {
        let driver = [("EL_DRIVER_REFRESH_US", MIXED), ("EL_DRIVER_BLOCK_US", "200")];
        println!("\n8 devices whose reads block for 200 us, {} s each:\n", self.seconds);
        for (name, cadence) in [("phase-locked", ["--resolution", "1ms"]), ("fixed rate", ["--poll-hz", "1000"])] {
            let cost = self.agent(&driver, &cadence);
            let edges = sharpness(&cost);
            let lanes = cost.recording.as_ref().map_or(0, |(r, _)| r.lanes);
            println!("  {name}: {:.2} % of a core, {lanes} threads, {edges}", 100.0 * cost.cpu_share);
            if name == "phase-locked" {
                self.judge("at most 10 % of a core", cost.cpu_share <= 0.1);
                self.judge("half of the edges within 1.5 ms", edges.p50_ms <= 1.5);
            }
        }
    }

    /// Promise: nothing is lost at 1 kHz x 8, every poll a row, while the disk takes nothing for five seconds.
    fn refused(&mut self) {
        let driver = [("EL_DRIVER_REFRESH_US", "1000")];
        let (_, rss_mib, (recording, _)) = self.record(&driver, &["--poll-hz", "1000"], 14, (4, 5));
        println!("\n8 devices x 1 kHz, every poll a row, the disk full from second 4 to 9:\n");
        println!(
            "  {} rows, {} lost, {} failed writes, {rss_mib:.1} MiB",
            recording.rows, recording.lost_rows, recording.write_errors
        );
        self.judge("the disk was full", recording.write_errors > 0);
        self.judge("no row lost", recording.lost_rows == 0);
        self.judge("memory below 25 MiB all the same", rss_mib < 25.0);
    }

    fn judge(&mut self, promise: &str, holds: bool) {
        println!("  {} {promise}", if holds { "holds: " } else { "MISSED:" });
        self.missed += u32::from(!holds);
    }
}

/// How well edges are known, and what they cost on disk.
struct Edges {
    count: usize,
    p50_ms: f64,
    /// Share of the brackets within 1.5 ms.
    sharp_share: f64,
    bytes_per_row: f64,
}

impl std::fmt::Display for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sharp = 100.0 * self.sharp_share;
        write!(f, "{} edges, bracket {:.2} ms (median), {sharp:.1} % within 1.5 ms", self.count, self.p50_ms)
    }
}

fn bytes(recording: &Recording) -> f64 {
    recording.files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len() as f64).sum()
}

fn sharpness(cost: &Cost) -> Edges {
    let (recording, campaign) = cost.recording.as_ref().expect("a recording");
    let batches = read_table(campaign, &SAMPLES).expect("samples");
    let rows: Vec<SampleRow> =
        batches.flat_map(|b| SampleRow::from_batch(&b.expect("a batch")).expect("samples")).collect();
    // The first seconds, in which periods are learnt, are dense anyway.
    let begin_ns = recording.t_begin_mono_ns + 4_000_000_000;
    let mut widths_ms: Vec<f64> =
        rows.iter().filter(|r| r.t_mono_ns > begin_ns).map(|r| (r.t_mono_ns - r.t_prev_poll_ns) as f64 / 1e6).collect();
    widths_ms.sort_by(f64::total_cmp);
    let sharp = widths_ms.iter().filter(|w| **w <= 1.5).count();
    Edges {
        count: widths_ms.len(),
        p50_ms: widths_ms.get(widths_ms.len() / 2).copied().unwrap_or(f64::NAN),
        sharp_share: sharp as f64 / widths_ms.len().max(1) as f64,
        bytes_per_row: cost.bytes_per_row,
    }
}
