//! What a run runs on: the simulated node, an inference server, a command, the script's own function.
//!
//! Two kinds. A simulated node and a server answer one batch after the other, and the runner lays the windows around
//! them. A command and a script carry out a whole run and mark its phases themselves.

mod command;
mod own_phases;
mod scripted;
mod simulated;
mod spec;

pub(super) use self::command::COMMAND_NAMES;
pub use self::command::CommandWorkload;
pub(super) use self::own_phases::{Counts, OwnMark, OwnPhases, OwnWindow};
pub use self::scripted::ScriptedWorkload;
pub use self::simulated::SimulatedWorkload;
pub use self::spec::{CommandSpec, ScriptSpec, ServerSpec, WorkloadSpec};
use super::process::StartError;
use super::server::{Facts, Latency, ServerWorkload};
use super::surroundings::{CLOSING_S, Surroundings};
use super::{Error, Plan, Point, Run};
use crate::clock::{Clock, SystemClock};
use crate::schema::Origin;
use crate::source::sim::SimNode;

/// Output tokens of a server's warm-up batch, at most: the first steps are the slow ones.
const WARMUP_TOKENS: u32 = 16;

/// A running workload. What it started ends with it.
#[derive(Debug)]
pub enum Workload {
    /// The built-in simulated node.
    Simulated(SimulatedWorkload),
    /// Inference servers, one after the other.
    Server(Box<ServerWorkload>),
    /// A command that marks its own phases.
    Command(Box<CommandWorkload>),
    /// The script's own `run` function.
    Script(Box<ScriptedWorkload>),
}

/// Servers that are up for a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployed {
    /// Devices whose energy belongs to the runs.
    pub devices: Vec<String>,
    /// What the driver calls them.
    pub device_name: Option<String>,
    /// Tokens that the KV cache of one replica holds.
    pub kv_capacity_tokens: Option<f64>,
}

/// What went wrong in a run, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The run failed; the next may not.
    Run(String),
    /// No run can do better: what the sweep starts is not there.
    Sweep(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Run(why) | Self::Sweep(why)) = self;
        f.write_str(why)
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Run(why)
    }
}

impl From<&str> for Trouble {
    fn from(why: &str) -> Self {
        Self::Run(why.to_owned())
    }
}

impl From<StartError> for Trouble {
    fn from(error: StartError) -> Self {
        match error {
            StartError::NotFound { .. } => Self::Sweep(format!("{error}; no run can do without it")),
            other => Self::Run(other.to_string()),
        }
    }
}

/// One batch that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// From sending the requests to the last token, s.
    pub duration_s: f64,
    /// Mean time from request to first output token, s.
    pub mean_ttft_s: f64,
    /// Mean time per output token after the first, s.
    pub mean_tpot_s: Option<f64>,
}

impl Workload {
    /// Starts the simulated node of a plan; simulated time begins at `t_start_mono_ns`.
    ///
    /// A resumed sweep passes an instant behind the recording so far, and how many runs it has behind it, so that the
    /// noise goes on instead of starting over.
    pub fn start(plan: &Plan, finished_runs: usize, t_start_mono_ns: i64) -> Result<Self, Error> {
        match &plan.workload {
            WorkloadSpec::Simulated { gpus, run_noise } => {
                SimulatedWorkload::new(plan, *gpus, *run_noise, finished_runs, t_start_mono_ns).map(Self::Simulated)
            }
            other => Err(Error::Workload(format!("{} does not run on the simulated node", other.engine()))),
        }
    }

    /// Starts what the plan asks for on this node, in real time.
    pub fn start_here(plan: &Plan, surroundings: Surroundings) -> Result<Self, Error> {
        match &plan.workload {
            WorkloadSpec::Simulated { .. } => {
                Err(Error::Workload("the simulated node does not run in real time".to_owned()))
            }
            WorkloadSpec::Server(spec) => {
                ServerWorkload::start(plan, spec, surroundings).map(|server| Self::Server(Box::new(server)))
            }
            WorkloadSpec::Command(spec) => {
                Ok(Self::Command(Box::new(CommandWorkload::new(spec.clone(), plan.measure, surroundings))))
            }
            WorkloadSpec::Script(_) => {
                ScriptedWorkload::new(plan, surroundings).map(|script| Self::Script(Box::new(script)))
            }
            WorkloadSpec::Blank { engine, .. } => Err(WorkloadSpec::not_described(engine)),
        }
    }

    /// The simulated node, for whoever reads its counters.
    pub fn sim_node(&self) -> Option<&SimNode> {
        match self {
            Self::Simulated(simulated) => Some(&simulated.node),
            _ => None,
        }
    }

    /// The real node around it.
    fn surroundings(&self) -> Option<&Surroundings> {
        match self {
            Self::Simulated(_) => None,
            Self::Server(server) => Some(server.surroundings()),
            Self::Command(command) => Some(command.surroundings()),
            Self::Script(script) => Some(script.surroundings()),
        }
    }

    /// What the `source` column of runs and marks says.
    pub fn origin(&self) -> Origin {
        self.surroundings().map_or(Origin::Simulated, |s| s.devices.origin())
    }

    /// The present instant on the workload's time, `t_mono_ns`.
    pub fn now(&self) -> i64 {
        match self {
            Self::Simulated(simulated) => simulated.node.now(),
            _ => SystemClock.now(),
        }
    }

    /// Starts what `point` needs, in place of what is up.
    pub(super) fn deploy(&mut self, point: &Point) -> Result<Deployed, Trouble> {
        let surroundings = match self {
            Self::Simulated(simulated) => return simulated.deploy(point).map_err(Trouble::from),
            Self::Server(server) => return server.deploy(point),
            Self::Command(command) => command.surroundings(),
            Self::Script(script) => script.surroundings(),
        };
        Ok(surroundings.devices.deployed(point)?)
    }

    /// Whether deployments are started, which takes its time and may fail.
    pub(super) fn starts_servers(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Makes what the next batch needs and what is no part of it, so that no GPU idles for it in a window.
    pub(super) fn make_ready(&mut self, point: &Point, output_tokens: u32) {
        if let Self::Server(server) = self {
            server.make_ready(point, output_tokens);
        }
    }

    /// Lets everything idle.
    pub(super) fn idle(&mut self, duration_s: f64) {
        if let Self::Simulated(simulated) = self {
            simulated.node.idle(duration_s);
        } else if let Some(surroundings) = self.surroundings() {
            surroundings.sleep(duration_s);
        }
    }

    /// Waits for so long, or until somebody asks to stop. Nothing that is simulated is ended by others.
    pub(super) fn heed(&self, duration_s: f64) {
        if let Some(surroundings) = self.surroundings() {
            surroundings.sleep(duration_s);
        }
    }

    /// Runs one batch of the point with so many output tokens.
    pub(super) fn batch(&mut self, point: &Point, output_tokens: u32) -> Result<Batch, String> {
        match self {
            Self::Simulated(simulated) => simulated.batch(point, output_tokens),
            Self::Server(server) => server.batch(point, output_tokens),
            Self::Command(_) | Self::Script(_) => Err("this workload runs no single batches".to_owned()),
        }
    }

    /// Whether a run is carried out whole, by [`carry_out`](Self::carry_out), instead of batch by batch.
    pub(super) fn has_own_phases(&self) -> bool {
        matches!(self, Self::Command(_) | Self::Script(_))
    }

    /// Carries out a whole run.
    pub(super) fn carry_out(&mut self, run: &Run, point: &Point) -> Result<OwnPhases, Trouble> {
        match self {
            Self::Simulated(_) | Self::Server(_) => Err("this workload runs batch by batch".into()),
            Self::Command(command) => command.carry_out(run, point),
            Self::Script(script) => script.carry_out(run, point).map_err(Trouble::from),
        }
    }

    /// How long a window must be of which the sweep says `asked_s`.
    pub(super) fn window_s(&self, asked_s: f64) -> f64 {
        self.surroundings().map_or(asked_s, |s| s.window_s(asked_s))
    }

    /// How long the counters are given to move again after the last window of a run.
    pub(super) fn closing_s(&self) -> f64 {
        self.surroundings().map_or(CLOSING_S, Surroundings::closing_s)
    }

    /// Output tokens of a warm-up batch: a server makes its decode's kernels when it first decodes a batch of that size.
    pub(super) fn warmup_tokens(&self, point: &Point) -> u32 {
        match self {
            Self::Server(_) => point.output_tokens.min(WARMUP_TOKENS),
            _ => 1,
        }
    }

    /// What requests had to wait since this was last asked, where each of them is timed.
    pub(super) fn take_latency(&mut self) -> Option<Latency> {
        match self {
            Self::Server(server) => server.take_latency(),
            _ => None,
        }
    }

    /// What the server that is up says about itself.
    pub(super) fn facts(&self) -> Option<&Facts> {
        match self {
            Self::Server(server) => server.facts(),
            _ => None,
        }
    }

    /// Between two runs: whatever nobody will ask for again may go.
    pub(super) fn forget(&mut self) {
        if let Self::Simulated(simulated) = self {
            simulated.node.forget();
        }
    }
}
