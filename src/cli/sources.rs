//! Which counters to read: the arguments that `agent`, `record` and `doctor` share.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use energylens::source::detect::{DetectOptions, Detection, SourceKind, detect};
use energylens::store::read_trace;

/// Where counters are looked for.
#[derive(Debug, Args)]
pub(crate) struct SourceArguments {
    /// Read only these: nvml, amd, intel, rapl, hwmon, cray, replay, or sim, which needs no hardware.
    #[arg(long, value_delimiter = ',')]
    sources: Vec<SourceKind>,
    /// NVML's library, where the loader does not find it.
    #[arg(long, hide_short_help = true)]
    nvml_library: Option<PathBuf>,
    /// AMD SMI's library, where the loader does not find it.
    #[arg(long, hide_short_help = true)]
    amd_smi_library: Option<PathBuf>,
    /// ROCm SMI's library, where the loader does not find it.
    #[arg(long, hide_short_help = true)]
    rocm_smi_library: Option<PathBuf>,
    /// Level Zero's loader, where the system's loader does not find it.
    #[arg(long, hide_short_help = true)]
    level_zero_library: Option<PathBuf>,
    /// What stands for /sys.
    #[arg(long, hide_short_help = true)]
    sysfs_root: Option<PathBuf>,
    /// Show a recording again, at its own pace: a campaign directory, or a file of samples.
    #[arg(long, value_name = "RECORDING")]
    replay: Option<PathBuf>,
    /// How many GPUs `--sources sim` simulates.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64), hide_short_help = true)]
    simulated_gpus: u16,
}

impl SourceArguments {
    /// Tries the sources asked for.
    pub(crate) fn detect(&self) -> anyhow::Result<Detection> {
        let defaults = DetectOptions::default();
        let replay = self
            .replay
            .as_deref()
            .map(|path| read_trace(path).map(Arc::new).with_context(|| format!("cannot replay {}", path.display())));
        Ok(detect(&DetectOptions {
            kinds: self.sources.clone(),
            nvml_library: self.nvml_library.clone(),
            amd_smi_library: self.amd_smi_library.clone(),
            rocm_smi_library: self.rocm_smi_library.clone(),
            level_zero_library: self.level_zero_library.clone(),
            sysfs_root: self.sysfs_root.clone().unwrap_or(defaults.sysfs_root),
            replay: replay.transpose()?,
            simulated_gpus: usize::from(self.simulated_gpus),
        }))
    }

    /// The same for what is happening now: a recording of something else cannot measure it.
    pub(crate) fn detect_live(&self) -> anyhow::Result<Detection> {
        anyhow::ensure!(
            self.replay.is_none() && !self.sources.contains(&SourceKind::Replay),
            "a recording cannot measure what runs now; leave out --replay"
        );
        self.detect()
    }

    /// The same, failing with the reasons when nothing can be read.
    pub(crate) fn require(&self) -> anyhow::Result<Detection> {
        let detection = self.detect()?;
        if detection.found.is_empty() {
            let reasons: Vec<String> = detection.report.iter().map(|f| format!("\n  {f}")).collect();
            let kinds: Vec<_> = self.sources.iter().map(|kind| kind.as_str()).collect();
            let which = if kinds.is_empty() { String::new() } else { format!(" of {}", kinds.join(", ")) };
            anyhow::bail!(
                "no energy counter{which} can be read here; `energylens demo` needs none{}",
                reasons.join("")
            );
        }
        Ok(detection)
    }
}
