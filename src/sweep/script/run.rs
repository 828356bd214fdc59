//! What the script's own `run` gets: the point, processes, phases, and a place for what it counted.
//!
//! Here, and only here, a script acts: while a plan is carried out, within one run. What it started ends with the run.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::fields::{Fields, show};
use super::place::Place;
use super::sandbox::{Budget, read_only, unknown};
use super::workloads;
use crate::clock::{Clock, SystemClock};
use crate::schema::MarkEvent;
use crate::sweep::process::{PATIENCE, Process, log_tail};
use crate::sweep::server::orphan::{Note, Tag};
use crate::sweep::surroundings::sleep;
use crate::sweep::workload::{Counts, OwnMark};
use crate::sweep::{Point, Run, server, template};

/// Phases that `run:phase` knows.
pub(super) const PHASES: [&str; 4] = ["warmup", "prefill", "decode", "total"];
/// Names that `run` has, beside its functions.
const LONGEST_WAIT_S: f64 = 7.0 * 86_400.0;
/// Of what a command prints, so much is handed to the script.
const MOST_OUTPUT_BYTES: usize = 1 << 20;
/// How often a starting server is asked whether it is ready.
const ASK_EVERY_S: f64 = 0.1;
const TAIL_LINES: usize = 10;

/// What one run is about, and where it may leave things.
pub(in crate::sweep) struct Job {
    pub(in crate::sweep) run: Run,
    pub(in crate::sweep) point: Point,
    /// What the environment of processes gets.
    pub(in crate::sweep) environment: Vec<(String, String)>,
    /// Logs are named after the run, in this directory.
    pub(in crate::sweep) logs: PathBuf,
    pub(in crate::sweep) stop: Arc<AtomicBool>,
}

/// What a run told.
#[derive(Default)]
pub(in crate::sweep) struct Told {
    pub(in crate::sweep) marks: Vec<OwnMark>,
    pub(in crate::sweep) counts: Counts,
}

/// A process, and the note of it that outlives a killed runner.
struct Started {
    process: Process,
    note: Note,
}

impl Started {
    /// Ends it with everything it started; the note goes last, in case this program is killed meanwhile.
    fn stop(self) -> std::io::Result<()> {
        let Self { process, note } = self;
        let ended = process.stop(PATIENCE);
        drop(note);
        ended.map(drop)
    }
}

/// One run while it goes on.
struct State {
    job: Job,
    servers: Vec<Option<Started>>,
    /// Processes started so far, for the names of their logs.
    started: usize,
    phase: Option<String>,
    told: Told,
    has_recorded: bool,
    is_over: bool,
}

/// The run as the functions of `run` share it.
#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    place: Place,
    budget: Budget,
}

/// Calls the script's `run` for one run. Everything that it started has ended when this returns.
pub(super) fn call(lua: &Lua, place: &Place, budget: &Budget, run: &Function, job: Job) -> mlua::Result<Told> {
    let state = State {
        job,
        servers: Vec::new(),
        started: 0,
        phase: None,
        told: Told::default(),
        has_recorded: false,
        is_over: false,
    };
    let shared = Shared { state: Arc::new(Mutex::new(state)), place: place.clone(), budget: budget.clone() };
    budget.renew();
    let result = shared.table(lua).and_then(|table| run.call::<MultiValue>(table));
    let mut state = shared.lock();
    state.is_over = true;
    // Last started, first ended: a client before its server.
    while let Some(server) = state.servers.pop() {
        if let Some(started) = server {
            let _ = started.stop();
        }
    }
    result.map(|_| std::mem::take(&mut state.told))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run, if it still goes on and nobody asked to stop.
    fn going(&self, lua: &Lua) -> mlua::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.is_over {
            return Err(self.place.fail(lua, "the run is over; its functions may not be kept for later"));
        }
        if state.job.stop.load(Ordering::Relaxed) {
            return Err(self.place.fail(lua, "somebody asked to stop"));
        }
        Ok(state)
    }

    fn function(
        &self,
        lua: &Lua,
        name: &'static str,
        body: fn(&Self, &Lua, MultiValue) -> mlua::Result<Value>,
    ) -> mlua::Result<Function> {
        let shared = self.clone();
        lua.create_function(move |lua, mut arguments: MultiValue| {
            if !matches!(arguments.pop_front(), Some(Value::Table(_))) {
                return Err(shared.place.fail(lua, format!("run.{name} is called with a dot; write run:{name}")));
            }
            body(&shared, lua, arguments)
        })
    }

    /// The `run` that the script gets.
    fn table(&self, lua: &Lua) -> mlua::Result<Table> {
        let run = lua.create_table()?;
        {
            let state = self.lock();
            let point = lua.create_table()?;
            for name in template::POINT_NAMES {
                let value = template::value(&state.job.point, name).unwrap_or_default();
                match value.parse::<i64>() {
                    // `point_id` may look like a number and is none.
                    Ok(n) if name != "point_id" && name != "model" => point.raw_set(name, n)?,
                    _ => point.raw_set(name, value)?,
                }
            }
            run.raw_set("point", read_only(lua, &self.place, point, "run.point", "field")?)?;
            run.raw_set("run_id", state.job.run.run_id.as_str())?;
            run.raw_set("repeat", state.job.run.repeat)?;
        }
        run.raw_set("spawn", self.function(lua, "spawn", Self::spawn)?)?;
        run.raw_set("exec", self.function(lua, "exec", Self::exec)?)?;
        run.raw_set("phase", self.function(lua, "phase", Self::phase)?)?;
        run.raw_set("record", self.function(lua, "record", Self::record)?)?;
        run.raw_set("log", self.function(lua, "log", Self::log)?)?;
        run.raw_set("sleep", self.function(lua, "sleep", Self::sleep)?)?;
        read_only(lua, &self.place, run, "run", "function")
    }

    /// Starts the process that `argv` and `env` of a call describe.
    fn start(&self, lua: &Lua, what: &'static str, fields: &Fields<'_>) -> mlua::Result<Started> {
        let argv = fields.need("argv", "a list of words, such as { \"python3\", \"serve.py\" }")?;
        let argv = workloads::words(&self.place, fields.line_of("argv"), &argv)?;
        let own = workloads::environment(fields, None)?;
        let mut state = self.going(lua)?;
        state.started += 1;
        let name = format!("{}-{}", state.job.run.run_id, state.started);
        let log = state.job.logs.join(format!("{name}.log"));
        let tag = Tag::new();
        let mut environment = state.job.environment.clone();
        environment.extend(own);
        environment.extend(tag.environment());
        // What an attempt before this one has printed is not what this one prints.
        let _ = std::fs::remove_file(&log);
        let note = Note::begin(&state.job.logs, &name, &tag);
        let started = Process::start(&argv, &environment, &log);
        let process = started.map_err(|e| self.place.fail(lua, format!("{what}: {e}")))?;
        note.started(process.id());
        Ok(Started { process, note })
    }

    /// `run:spawn { argv = { ... }, env = { ... } }`
    fn spawn(&self, lua: &Lua, mut arguments: MultiValue) -> mlua::Result<Value> {
        let options = arguments.pop_front().unwrap_or(Value::Nil);
        let fields = Fields::new(lua, &self.place, &options, "run:spawn", "option", &["argv", "env"], 0)?;
        let started = self.start(lua, "run:spawn", &fields)?;
        let number = {
            let mut state = self.lock();
            state.servers.push(Some(started));
            state.servers.len() - 1
        };
        let server = lua.create_table()?;
        let shared = self.clone();
        let wait_ready = lua.create_function(move |lua, (_, options): (Value, Value)| {
            shared.wait_ready(lua, number, &options).map(|()| Value::Nil)
        })?;
        server.raw_set("wait_ready", wait_ready)?;
        let shared = self.clone();
        let stop = lua.create_function(move |lua, _: MultiValue| {
            let started = shared.going(lua)?.servers.get_mut(number).and_then(Option::take);
            let started = started.ok_or_else(|| shared.place.fail(lua, "server:stop: it was stopped before"))?;
            started.stop().map_err(|e| shared.place.fail(lua, format!("server:stop: {e}")))?;
            Ok(Value::Nil)
        })?;
        server.raw_set("stop", stop)?;
        read_only(lua, &self.place, server, "a server", "function").map(Value::Table)
    }

    fn wait_ready(&self, lua: &Lua, number: usize, options: &Value) -> mlua::Result<()> {
        let known = ["url", "timeout_s"];
        let fields = Fields::new(lua, &self.place, options, "server:wait_ready", "option", &known, 0)?;
        let url = fields.text("url", "an address that answers 200 when the server is ready")?;
        let timeout_s = fields.number("timeout_s", 0.1, LONGEST_WAIT_S, Some(600.0))?;
        let deadline = Instant::now() + Duration::from_secs_f64(timeout_s);
        let place = &self.place;
        loop {
            let stop = {
                let state = self.going(lua)?;
                let started = state.servers.get(number).and_then(Option::as_ref);
                let Started { process, .. } =
                    started.ok_or_else(|| place.fail(lua, "server:wait_ready: the server was stopped before"))?;
                if let Some(ended) = process.ended() {
                    let said = process.log_tail(TAIL_LINES);
                    let message = format!("`{}` {ended} before it was ready; it said:\n{said}", process.program());
                    return Err(place.fail(lua, message));
                }
                state.job.stop.clone()
            };
            if server::answers(&url).map_err(|e| fields.fail("url", e))? {
                self.budget.renew();
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(place.fail(lua, format!("{url} was not ready within {timeout_s} s")));
            }
            sleep(ASK_EVERY_S, &stop);
        }
    }

    /// `run:exec { argv = { ... }, env = { ... }, timeout_s = 600 }` gives `{ code = 0, output = "..." }`.
    fn exec(&self, lua: &Lua, mut arguments: MultiValue) -> mlua::Result<Value> {
        let options = arguments.pop_front().unwrap_or(Value::Nil);
        let known = ["argv", "env", "timeout_s"];
        let fields = Fields::new(lua, &self.place, &options, "run:exec", "option", &known, 0)?;
        let timeout_s = fields.number("timeout_s", 0.1, LONGEST_WAIT_S, Some(3_600.0))?;
        let started = self.start(lua, "run:exec", &fields)?;
        let process = &started.process;
        let stop = self.lock().job.stop.clone();
        let limit = Duration::from_secs_f64(timeout_s);
        let ended = process.wait(limit, &mut || stop.load(Ordering::Relaxed));
        let (program, log) = (process.program().to_owned(), process.log().to_owned());
        let _ = started.stop();
        drop(self.going(lua)?);
        self.budget.renew();
        let Some(ended) = ended else {
            let said = log_tail(&log, TAIL_LINES);
            let message = format!("`{program}` has not ended within {timeout_s} s; it said:\n{said}");
            return Err(self.place.fail(lua, message));
        };
        let mut output = std::fs::read(&log).unwrap_or_default();
        output.truncate(MOST_OUTPUT_BYTES);
        let result = lua.create_table()?;
        // As shells do, where a signal ended it.
        result.raw_set("code", ended.code.unwrap_or_else(|| 128 + ended.signal.unwrap_or(0)))?;
        result.raw_set("output", lua.create_string(&output)?)?;
        read_only(lua, &self.place, result, "what run:exec gives", "field").map(Value::Table)
    }

    /// `run:phase("prefill", function() ... end)`; gives what the function gives.
    fn phase(&self, lua: &Lua, mut arguments: MultiValue) -> mlua::Result<Value> {
        let (name, body) = (arguments.pop_front(), arguments.pop_front());
        let (Some(Value::String(name)), Some(Value::Function(body))) = (&name, &body) else {
            let expected = "run:phase takes a name and a function: run:phase(\"prefill\", function() ... end)";
            return Err(self.place.fail(lua, expected));
        };
        let name = name.to_string_lossy();
        if !PHASES.contains(&name.as_str()) {
            let message = unknown("run:phase", "phase", &format!("`{name}`"), PHASES);
            return Err(self.place.fail(lua, message));
        }
        if let Some(open) = self.going(lua)?.phase.replace(name.clone()) {
            let message = format!("phase {name} begins inside of phase {open}; one phase ends before the next begins");
            return Err(self.place.fail(lua, message));
        }
        let mark = |event| {
            let mark = OwnMark { t_mono_ns: SystemClock.now(), phase: name.clone(), event };
            self.lock().told.marks.push(mark);
        };
        mark(MarkEvent::Begin);
        let result = body.call::<Value>(());
        mark(MarkEvent::End);
        self.lock().phase = None;
        self.budget.renew();
        result
    }

    /// `run:record { prefill_batches = 20, mean_ttft_s = 0.1 }`
    fn record(&self, lua: &Lua, mut arguments: MultiValue) -> mlua::Result<Value> {
        const MOST: u64 = u32::MAX as u64;
        let values = arguments.pop_front().unwrap_or(Value::Nil);
        let fields = Fields::new(lua, &self.place, &values, "run:record", "field", &Counts::NAMES, 0)?;
        let whole = |name: &str| match fields.get(name)? {
            Value::Nil => Ok(None),
            _ => fields.whole(name, 1, MOST, None).map(|n| u32::try_from(n).ok()),
        };
        let number = |name: &str| match fields.get(name)? {
            Value::Nil => Ok(None),
            _ => fields.number(name, f64::MIN_POSITIVE, f64::MAX, None).map(Some),
        };
        let counts = Counts {
            prefill_batches: whole("prefill_batches")?,
            decode_batches: whole("decode_batches")?,
            total_batches: whole("total_batches")?,
            mean_ttft_s: number("mean_ttft_s")?,
            mean_tpot_s: number("mean_tpot_s")?,
            kv_capacity_tokens: number("kv_capacity_tokens")?,
        };
        let mut state = self.going(lua)?;
        if std::mem::replace(&mut state.has_recorded, true) {
            return Err(self.place.fail(lua, "run:record is called a second time; record everything at once"));
        }
        state.told.counts = counts;
        Ok(Value::Nil)
    }

    /// `run:log(text)`
    fn log(&self, lua: &Lua, mut arguments: MultiValue) -> mlua::Result<Value> {
        let text = match arguments.pop_front() {
            Some(Value::String(text)) => text.to_string_lossy(),
            other => {
                let found = show(&other.unwrap_or(Value::Nil));
                return Err(self.place.fail(lua, format!("run:log takes a text; found {found}")));
            }
        };
        let state = self.going(lua)?;
        let path = state.job.logs.join(format!("{}.log", state.job.run.run_id));
        let opened = std::fs::File::options().create(true).append(true).open(&path);
        let written = opened.and_then(|mut file| writeln!(file, "{text}"));
        written.map_err(|e| self.place.fail(lua, format!("{} cannot be written: {e}", path.display())))?;
        Ok(Value::Nil)
    }

    /// `run:sleep(seconds)`
    fn sleep(&self, lua: &Lua, mut arguments: MultiValue) -> mlua::Result<Value> {
        let found = arguments.pop_front().unwrap_or(Value::Nil);
        let seconds = super::fields::as_number(&found).filter(|s| (0.0..=LONGEST_WAIT_S).contains(s));
        let seconds =
            seconds.ok_or_else(|| self.place.fail(lua, format!("run:sleep takes seconds; found {}", show(&found))))?;
        let stop = self.going(lua)?.job.stop.clone();
        sleep(seconds, &stop);
        drop(self.going(lua)?);
        if seconds > 0.0 {
            self.budget.renew();
        }
        Ok(Value::Nil)
    }
}
