//! Which counters to read: the arguments that `agent`, `record` and `doctor` share.

use std::path::PathBuf;

use clap::Args;
use energylens::source::detect::{DetectOptions, Detection, SourceKind, detect};

/// Where counters are looked for.
#[derive(Debug, Args)]
pub(crate) struct SourceArguments {
    /// Read only these: nvml, amd, rapl.
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
    /// What stands for /sys.
    #[arg(long, hide_short_help = true)]
    sysfs_root: Option<PathBuf>,
}

impl SourceArguments {
    /// Tries the sources asked for.
    pub(crate) fn detect(&self) -> Detection {
        let defaults = DetectOptions::default();
        detect(&DetectOptions {
            kinds: self.sources.clone(),
            nvml_library: self.nvml_library.clone(),
            amd_smi_library: self.amd_smi_library.clone(),
            rocm_smi_library: self.rocm_smi_library.clone(),
            sysfs_root: self.sysfs_root.clone().unwrap_or(defaults.sysfs_root),
        })
    }

    /// The same, failing with the reasons when nothing can be read.
    pub(crate) fn require(&self) -> anyhow::Result<Detection> {
        let detection = self.detect();
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
