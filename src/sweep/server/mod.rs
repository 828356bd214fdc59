//! Real inference servers: started, awaited, loaded with requests, and ended.
//!
//! Start at [`ServerWorkload`]. A deployment is one server; a batch is as many streamed requests as the point has
//! sequences, all in flight at once, each with exactly the point's tokens. Whatever does not come out as asked (a server
//! that does not start, a prompt that was cached, a token too few) is a failed run in words, and the sweep goes on.

mod facts;
mod http;
mod latency;
mod load;
mod log;
pub(super) mod orphan;
mod prompt;
mod ready;
mod spec;
mod stream;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub use self::facts::Facts;
pub use self::latency::{Latency, Percentiles};
pub use self::load::{Load, Served, Target};
pub(super) use self::ready::answers;
pub use self::spec::{SERVER_NAMES, ServerSpec};
pub use self::stream::{Completion, Request, Timings};
use super::process::{PATIENCE, Process};
use super::surroundings::Surroundings;
use super::workload::{Batch, Deployed, Trouble};
use super::{Error, Plan, Point, template};
use latency::Tally;

/// How often a starting server is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A connection breaks some milliseconds before the process that held it can be seen to have ended.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// Servers as a workload.
#[derive(Debug)]
pub struct ServerWorkload {
    spec: ServerSpec,
    /// One point for each deployment, with the largest sizes of its points.
    deployments: Vec<Point>,
    seed: u64,
    salt: String,
    surroundings: Surroundings,
    logs: PathBuf,
    up: Option<Up>,
    /// Servers that have been up: each gets prompts of its own.
    served_by: u64,
    tally: Option<Tally>,
}

/// A server that is ready.
#[derive(Debug)]
struct Up {
    /// The process and the note of it, where this program started it.
    process: Option<(Process, orphan::Note)>,
    load: Load,
    facts: Facts,
}

impl ServerWorkload {
    /// Servers for `plan`; their logs go to `logs` in the campaign. What a runner that was killed there left is ended.
    pub fn start(plan: &Plan, spec: &ServerSpec, surroundings: Surroundings) -> Result<Self, Error> {
        spec.check_words().and_then(|()| spec.check_points(&plan.points)).map_err(Error::Workload)?;
        let logs = surroundings.dir.join("logs");
        std::fs::create_dir_all(&logs).map_err(|source| Error::Io { path: logs.clone(), verb: "written", source })?;
        orphan::end(&logs);
        // The prefix cache of a server that is not ended with a session remembers the prompts of the session before,
        // which had the same seed.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let salt = match spec.argv {
            Some(_) => String::new(),
            None => since.map_or(0, |d| d.as_nanos()).to_string(),
        };
        Ok(Self {
            spec: spec.clone(),
            deployments: deployments(&plan.points),
            seed: plan.seed,
            salt,
            surroundings,
            logs,
            up: None,
            served_by: 0,
            tally: Tally::new(),
        })
    }

    /// The node around the servers.
    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Starts the server that `point` needs, or finds the running one; a failure is an outcome of the run, in words.
    pub fn deploy(&mut self, point: &Point) -> Result<Deployed, Trouble> {
        self.undeploy();
        self.served_by += 1;
        let deployed = self.surroundings.devices.deployed(point)?;
        let up = match self.spec.argv {
            Some(_) => self.launch(point)?,
            None => {
                let url = self.spec.url.clone();
                http::check_here(&url)?;
                self.await_ready(&url, None)?;
                let values = self.spec.values(point, self.largest(point), None)?;
                let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
                self.connect(point, &pairs, url, None)?
            }
        };
        let kv_capacity_tokens = up.facts.kv_capacity_tokens;
        self.up = Some(up);
        Ok(Deployed { kv_capacity_tokens, ..deployed })
    }

    /// Makes the next batch's requests, which on a large batch takes longer than sending them.
    pub fn make_ready(&mut self, point: &Point, output_tokens: u32) {
        if let Some(up) = &mut self.up {
            up.load.make_ready((point.batch_size, point.input_tokens, output_tokens));
        }
    }

    /// Has one batch served.
    pub fn batch(&mut self, point: &Point, output_tokens: u32) -> Result<Batch, String> {
        let (sizes, surroundings) = ((point.batch_size, point.input_tokens, output_tokens), &self.surroundings);
        let up = self.up.as_mut().ok_or("no server is up")?;
        let sequence = u64::from(point.input_tokens) + u64::from(output_tokens);
        if let Some(most) = up.facts.max_context_tokens.filter(|most| sequence > *most) {
            return Err(format!("the server takes sequences of at most {most} tokens, and the point has {sequence}"));
        }
        let process = up.process.as_ref().map(|(process, _)| process);
        let mut given_up = || match process.and_then(Process::ended) {
            _ if surroundings.is_stopped() => Some("the sweep was asked to stop".to_owned()),
            Some(ended) => Some(died(process, &ended.to_string())),
            None => None,
        };
        let served = up.load.batch(sizes, &mut given_up).map_err(|why| {
            let ended = process.and_then(|p| p.wait(LAST_BREATH, &mut || surroundings.is_stopped()));
            ended.map_or(why, |ended| died(process, &ended.to_string()))
        })?;
        if let Some(tally) = &mut self.tally {
            tally.add(&served);
        }
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), v| (sum + v, count + 1));
            (count > 0).then(|| sum / f64::from(count))
        };
        Ok(Batch {
            duration_s: served.duration.as_secs_f64(),
            mean_ttft_s: mean(&mut served.completions.iter().map(|c| c.ttft.as_secs_f64())).unwrap_or(0.0),
            mean_tpot_s: mean(&mut served.completions.iter().filter_map(Completion::tpot_s)),
        })
    }

    /// What requests had to wait since this was last asked.
    pub fn take_latency(&mut self) -> Option<Latency> {
        let taken = std::mem::replace(&mut self.tally, Tally::new());
        taken.and_then(|tally| tally.latency())
    }

    /// What the server that is up says about itself.
    pub fn facts(&self) -> Option<&Facts> {
        self.up.as_ref().map(|up| &up.facts)
    }

    /// Ends the server, if this program started it.
    pub fn undeploy(&mut self) {
        if let Some((process, note)) = self.up.take().and_then(|up| up.process) {
            end(process, note);
        }
    }

    /// Starts a server and waits until it is ready.
    fn launch(&self, point: &Point) -> Result<Up, Trouble> {
        let chosen = self.spec.url.contains("{port}");
        // Between finding a free port and the server's taking it somebody else may have taken it.
        for last in [!chosen, true] {
            let port = if chosen { Some(http::free_port()?) } else { None };
            let values = self.spec.values(point, self.largest(point), port)?;
            let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let url = template::expand(&self.spec.url, point, &pairs)?;
            http::check_here(&url)?;
            if http::is_taken(&url)? {
                return Err(format!(
                    "somebody listens at {url} already, and would be measured in place of the server; end it, or \
                     leave the port to this program"
                )
                .into());
            }
            let (argv, own) = self.spec.command(point, &values)?;
            // The spec's own variables come last, and so win.
            let mut env = self.surroundings.devices.environment(point.num_gpus());
            env.extend(own);
            let log = self.new_log(point);
            let tag = orphan::Tag::new();
            env.extend(tag.environment());
            let note = orphan::Note::begin(&self.logs, "server", &tag);
            let process = Process::start(&argv, &env, &log)?;
            note.started(process.id());
            match self.await_ready(&url, Some(&process)) {
                Ok(()) => return Ok(self.connect(point, &pairs, url, Some((process, note)))?),
                Err(why) => {
                    end(process, note);
                    if last || self.surroundings.is_stopped() || !log::says_port_is_taken(&log) {
                        return Err(why.into());
                    }
                }
            }
        }
        Err("no port could be had".into())
    }

    /// Waits until a server answers, has ended, or has had its time.
    fn await_ready(&self, url: &str, process: Option<&Process>) -> Result<(), String> {
        let limit = Duration::try_from_secs_f64(self.spec.ready_timeout_s).unwrap_or(Duration::MAX);
        let agent = http::agent(limit);
        let health = format!("{url}{}", self.spec.health_path);
        let begin = Instant::now();
        loop {
            if self.surroundings.is_stopped() {
                return Err("the sweep was asked to stop".to_owned());
            }
            if let Some((process, ended)) = process.and_then(|p| Some((p, p.ended()?))) {
                return Err(format!("the server {ended} before it was ready: {}", log::why(process.log())));
            }
            let answer = match http::get(&agent, &health) {
                Ok((200, _)) => return Ok(()),
                // An engine without such a path is ready when it knows its models.
                Ok((404, _)) if http::text(&agent, &format!("{url}/v1/models")).is_some() => return Ok(()),
                Ok((status, _)) => format!("{health} answers with status {status}"),
                Err(why) => why,
            };
            if begin.elapsed() >= limit {
                let waited = self.spec.ready_timeout_s;
                let log = process.map_or(String::new(), |p| format!("; {}", log::why(p.log())));
                return Err(format!("the server is not ready after {waited} s: {answer}{log}"));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// What a ready server says about itself, and a load for it.
    fn connect(
        &self,
        point: &Point,
        values: &[(&str, &str)],
        url: String,
        process: Option<(Process, orphan::Note)>,
    ) -> Result<Up, String> {
        let timeout = Duration::try_from_secs_f64(self.spec.batch_timeout_s).unwrap_or(Duration::MAX);
        let log = process.as_ref().map_or(String::new(), |(process, _)| log::head(process.log()));
        let facts = facts::Answers::ask(&http::agent(timeout), &url).facts(&log);
        let model = match &self.spec.served_model {
            Some(word) => Some(template::expand(word, point, values)?),
            None => facts.served_model.clone(),
        };
        let request = self.spec.request.clone().into_iter().collect();
        let salt = format!("{}|{}|{}", self.salt, self.served_by, point.point_id);
        let vocab_size = self.spec.vocab_size.or(facts.vocab_size);
        let load = Load::new(Target { url, model, request, timeout }, self.seed, &salt, vocab_size);
        Ok(Up { process, load, facts })
    }

    /// The deployment's largest sizes.
    fn largest<'a>(&'a self, point: &'a Point) -> &'a Point {
        self.deployments.iter().find(|d| d.shares_deployment(point)).unwrap_or(point)
    }

    /// A log that does not exist yet: one for each start, in order.
    fn new_log(&self, point: &Point) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let engine: String = self.spec.engine.chars().map(plain).take(32).collect();
        let degrees = format!("tp{}-pp{}-dp{}", point.tensor_parallel, point.pipeline_parallel, point.data_parallel);
        let name = |n: u32| self.logs.join(format!("server-{n:04}-{engine}-{degrees}.log"));
        let begins = |n: u32| format!("server-{n:04}-");
        let names: Vec<String> = std::fs::read_dir(&self.logs)
            .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let free = (1..10_000).find(|n| !names.iter().any(|name| name.starts_with(&begins(*n))));
        name(free.unwrap_or(10_000))
    }
}

impl Drop for ServerWorkload {
    fn drop(&mut self) {
        self.undeploy();
    }
}

/// Ends a server; the note stays until it is over, in case this program is killed meanwhile.
fn end(process: Process, note: orphan::Note) {
    // Whatever the end was, the group is gone.
    let _ = process.stop(PATIENCE);
    drop(note);
}

fn died(process: Option<&Process>, how: &str) -> String {
    let why = process.map_or(String::new(), |p| format!(": {}", log::why(p.log())));
    format!("the server {how} during the run{why}")
}

/// One point for each deployment, with the largest sizes of its points; points come sorted by deployment.
fn deployments(points: &[Point]) -> Vec<Point> {
    let mut found: Vec<Point> = Vec::new();
    for point in points {
        match found.iter_mut().rev().find(|d| d.shares_deployment(point)) {
            Some(largest) => {
                // The longest sequence is one point's, not the longest input of one and the longest output of another.
                if sequence(point) > sequence(largest) {
                    (largest.input_tokens, largest.output_tokens) = (point.input_tokens, point.output_tokens);
                }
                largest.batch_size = largest.batch_size.max(point.batch_size);
            }
            None => found.push(point.clone()),
        }
    }
    found
}

fn sequence(point: &Point) -> u64 {
    u64::from(point.input_tokens) + u64::from(point.output_tokens)
}
