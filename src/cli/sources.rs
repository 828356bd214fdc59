//! Which counters to read: the arguments that `agent`, `record` and `doctor` share.

use std::path::PathBuf;

use clap::Args;
use energylens::source::detect::{DetectOptions, Detection, detect};

/// Where counters are looked for.
#[derive(Debug, Args)]
pub(crate) struct SourceArguments {
    /// Read only these: nvml, rapl.
    #[arg(long, value_delimiter = ',', value_parser = ["nvml", "rapl"])]
    sources: Vec<String>,
    /// NVML's library, where the loader does not find it.
    #[arg(long, hide_short_help = true)]
    nvml_library: Option<PathBuf>,
    /// Root of the powercap tree.
    #[arg(long, hide_short_help = true)]
    powercap_root: Option<PathBuf>,
}

impl SourceArguments {
    /// Tries the sources asked for.
    pub(crate) fn detect(&self) -> Detection {
        let defaults = DetectOptions::default();
        let mut detection = detect(&DetectOptions {
            nvml_library: self.nvml_library.clone(),
            powercap_root: self.powercap_root.clone().unwrap_or(defaults.powercap_root),
        });
        if !self.sources.is_empty() {
            let wanted = |id: &str| self.sources.iter().any(|s| id.split(':').next() == Some(s));
            detection.found.retain(|source| source.devices().iter().any(|d| wanted(&d.id)));
        }
        detection
    }

    /// The same, failing with the reasons when nothing can be read.
    pub(crate) fn require(&self) -> anyhow::Result<Detection> {
        let detection = self.detect();
        if detection.found.is_empty() {
            let reasons: Vec<String> = detection.report.iter().map(|f| format!("\n  {f}")).collect();
            let which =
                if self.sources.is_empty() { String::new() } else { format!(" of {}", self.sources.join(", ")) };
            anyhow::bail!(
                "no energy counter{which} can be read here; `energylens demo` needs none{}",
                reasons.join("")
            );
        }
        Ok(detection)
    }
}
