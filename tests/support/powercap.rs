//! A powercap tree as the kernel lays it out, with counters that climb while it is there.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// One package and its memory. The package's counter rises every millisecond at a known power.
pub(crate) struct Powercap {
    directory: TempDir,
    stop: Arc<AtomicBool>,
    climbing: Option<JoinHandle<()>>,
}

impl Powercap {
    /// A package that draws `power_w`.
    pub(crate) fn drawing(power_w: f64) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for (zone, name, range) in
            [("intel-rapl:0", "package-0", "262143328850"), ("intel-rapl:0:0", "dram", "65712999613")]
        {
            let zone = directory.path().join("class/powercap").join(zone);
            fs::create_dir_all(&zone).expect("a writable directory");
            for (file, text) in [("name", name), ("max_energy_range_uj", range), ("energy_uj", "100000000000")] {
                fs::write(zone.join(file), format!("{text}\n")).expect("a writable directory");
            }
        }
        let counter = directory.path().join("class/powercap/intel-rapl:0/energy_uj");
        let stop = Arc::new(AtomicBool::new(false));
        let climbing = Some(climb(counter, power_w, stop.clone()));
        Self { directory, stop, climbing }
    }

    /// What stands for `/sys`, for `--sysfs-root`.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }
}

fn climb(counter: PathBuf, power_w: f64, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(counter).expect("the counter's file");
        let start = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let risen_uj = (power_w * start.elapsed().as_secs_f64() * 1e6) as u64;
            // In place and of one length: a reader sees the old value or the new one, never an empty file.
            file.write_all_at(format!("{:012}\n", 100_000_000_000 + risen_uj).as_bytes(), 0).expect("a writable file");
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

impl Drop for Powercap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(climbing) = self.climbing.take() {
            let _ = climbing.join();
        }
    }
}
