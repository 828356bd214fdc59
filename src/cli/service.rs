//! What makes `energylens agent` a service: the marks socket, the metrics endpoint, a word to the service manager.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use clap::Args;
use energylens::agent::{
    JobPlaces, JobWatch, MarkSocket, MarkSocketOptions, MetricsServer, MetricsState, Recorder, ServiceNotifier,
};
use energylens::clock::SystemClock;
use energylens::store::{Campaign, MarkRow, host_name};

/// How often the summary is passed on; it is renewed about once a second.
const OBSERVE_EVERY: Duration = Duration::from_millis(500);

/// What the agent offers to others on the node.
#[derive(Debug, Args)]
pub(crate) struct ServiceArguments {
    /// Take phase marks on this Unix socket; clients find it through $ENERGYLENS_MARKS.
    #[arg(long, value_name = "PATH")]
    marks: Option<PathBuf>,
    /// Permissions of the marks socket; who may write to it may mark.
    #[arg(long, value_name = "MODE", default_value = "0666", value_parser = parse_mode, requires = "marks")]
    marks_mode: u32,
    /// Serve metrics for Prometheus on this address of the loopback interface, such as 127.0.0.1:9400.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("`{text}` are no permissions; expected three octal digits such as 0660")),
    }
}

/// Looks into this process's environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Which job is on the node, for the rows of a recording.
pub(crate) fn job_watch() -> JobWatch {
    JobWatch::start(JobPlaces::default(), variable)
}

/// Takes marks for a recording in `campaign`; `tap` hears of each.
pub(crate) fn take_marks(
    campaign: &Campaign,
    path: PathBuf,
    mode: u32,
    tap: Option<Sender<MarkRow>>,
) -> anyhow::Result<MarkSocket> {
    let options = MarkSocketOptions {
        path,
        mode,
        dir: campaign.dir().to_owned(),
        host: host_name(),
        anchor: None,
        places: JobPlaces::default(),
        tap,
    };
    Ok(MarkSocket::bind(options, Arc::new(SystemClock))?)
}

/// The parts of a running service, beside its recorder.
pub(crate) struct Service {
    marks: Option<MarkSocket>,
    state: Arc<MetricsState>,
    // Held for its thread.
    _metrics: Option<MetricsServer>,
    notifier: ServiceNotifier,
    next: Instant,
}

impl Service {
    /// Opens what was asked for: before the recording starts, so that what cannot be opened is known.
    pub(crate) fn start(a: &ServiceArguments, campaign: &Campaign) -> anyhow::Result<Self> {
        let marks = a.marks.clone().map(|path| take_marks(campaign, path, a.marks_mode, None)).transpose()?;
        let state = Arc::new(MetricsState::new(marks.as_ref().map(|m| m.counts().clone())));
        let metrics = a.metrics.map(|address| MetricsServer::start(address, state.clone())).transpose()?;
        if let Some(metrics) = &metrics {
            eprintln!("metrics at http://{}/metrics", metrics.address());
        }
        if let Some(marks) = &marks {
            eprintln!("marks at {}", marks.path().display());
        }
        let (notifier, next) = (ServiceNotifier::new(), Instant::now());
        Ok(Self { marks, state, _metrics: metrics, notifier, next })
    }

    /// Passes on how the recording stands, if it is time.
    pub(crate) fn observe(&mut self, recorder: &Recorder) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + OBSERVE_EVERY;
            let recording = recorder.snapshot();
            self.notifier.observe(&recording);
            self.state.publish(recording);
        }
    }

    /// Seals the marks so far and begins a new file.
    pub(crate) fn reopen(&self) {
        if let Some(marks) = &self.marks {
            marks.reopen();
        }
    }

    /// Says that the end is near.
    pub(crate) fn stopping(&self) {
        self.notifier.stopping();
    }

    /// Takes the last marks and seals them; gives a line on them where any came.
    pub(crate) fn finish(self) -> anyhow::Result<Option<String>> {
        let Some(marks) = self.marks else { return Ok(None) };
        let counts = marks.counts().clone();
        let received = marks.finish()?;
        let refused: Vec<String> = counts
            .refused()
            .filter(|(_, n)| *n > 0)
            .map(|(why, n)| format!("{n} refused ({})", why.as_str()))
            .collect();
        let refused = if refused.is_empty() { String::new() } else { format!(", {}", refused.join(", ")) };
        Ok((received.rows > 0 || !refused.is_empty()).then(|| format!("{} marks{refused}", received.rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("600"), Ok(0o600));
        for bad in ["", "888", "1777", "rw-rw-rw-", "-1"] {
            assert!(parse_mode(bad).is_err_and(|e| e.contains("expected three octal digits")), "{bad}");
        }
    }
}
