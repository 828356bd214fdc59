//! The sandbox: which parts of Lua a sweep has, how much memory and time.
//!
//! A hook counts instructions, but it is not called inside library functions written in C. So those that one call can
//! keep busy for ever are left out (`pcall` and `setmetatable` too: the one could swallow the limit's error, the other
//! install finalisers in which hooks are off) or bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, Variadic, VmState};

use super::place::Place;
use crate::schema;

/// Memory that a script may use.
const MEMORY_BYTES: usize = 64 << 20;
/// Instructions for evaluating the script, and again for each call of `where`.
const INSTRUCTIONS: u64 = 50_000_000;
/// The hook comes this often; a limit is overrun by at most as much.
const HOOK_EVERY: u32 = 10_000;
/// Longest text that `string.rep` makes.
const LONGEST_REPEAT_BYTES: u64 = 1 << 20;
/// Steps that one library call may take: pattern matching, moving of tables.
const STEPS: f64 = 1e7;
/// Printed lines kept until they are handed over, and the longest kept of each.
const LOG_LIMITS: (usize, usize) = (1_000, 1_000);

/// Lua with the small library, its budget and what it printed.
pub(super) struct Sandbox {
    pub(super) lua: Lua,
    library: Table,
    environment: Table,
    used: Budget,
    log: Arc<Mutex<Vec<String>>>,
}

/// Instructions used since the script was last given a whole budget.
#[derive(Clone, Default)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(super) fn renew(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Sandbox {
    pub(super) fn new(place: &Place) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        let used = Budget::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let library = library(&lua, place, &log)?;
        let environment = read_only(&lua, place, library.clone(), "global", "name")?;
        let sandbox = Self { lua, library, environment, used, log };
        sandbox.limit()?;
        Ok(sandbox)
    }

    fn limit(&self) -> mlua::Result<()> {
        self.lua.set_memory_limit(MEMORY_BYTES)?;
        let used = self.used.0.clone();
        let triggers = HookTriggers::new().every_nth_instruction(HOOK_EVERY);
        self.lua.set_hook(triggers, move |_, _| {
            if used.fetch_add(u64::from(HOOK_EVERY), Ordering::Relaxed) < INSTRUCTIONS {
                return Ok(VmState::Continue);
            }
            let millions = INSTRUCTIONS / 1_000_000;
            Err(mlua::Error::RuntimeError(format!("the script takes more than {millions} million instructions")))
        })
    }

    /// Runs the script; `el` is what `require "energylens"` gives.
    pub(super) fn evaluate(&self, place: &Place, source: &str, el: Table) -> mlua::Result<Value> {
        let el = read_only(&self.lua, place, el, "energylens", "function")?;
        let at = place.clone();
        let require = self.lua.create_function(move |lua, name: Value| match &name {
            Value::String(text) if text.as_bytes() == b"energylens" => Ok(el.clone()),
            other => {
                let found = super::fields::show(other);
                Err(at.fail(lua, format!("require {found}: a sweep may only require \"energylens\"")))
            }
        })?;
        self.library.raw_set("require", require)?;
        self.renew_budget();
        self.lua
            .load(source)
            .set_name(place.chunk_name())
            .set_mode(ChunkMode::Text)
            .set_environment(self.environment.clone())
            .eval()
    }

    /// Gives the next call into the script a whole budget.
    pub(super) fn renew_budget(&self) {
        self.used.renew();
    }

    /// The budget, for functions that take time of their own.
    pub(super) fn budget(&self) -> &Budget {
        &self.used
    }

    pub(super) fn drain_log(&self, log: &mut dyn FnMut(&str)) {
        let lines = self.log.lock().map(|mut lines| std::mem::take(&mut *lines)).unwrap_or_default();
        lines.iter().for_each(|line| log(line));
    }
}

/// A stand-in for `table` that can be read, not written, and that knows what it lacks.
pub(super) fn read_only(
    lua: &Lua,
    place: &Place,
    table: Table,
    whose: &'static str,
    what: &'static str,
) -> mlua::Result<Table> {
    let metatable = lua.create_table()?;
    let at = place.clone();
    let index = lua.create_function(move |lua, (_, key): (Value, Value)| {
        let found: Value = table.raw_get(&key)?;
        if !found.is_nil() {
            return Ok(found);
        }
        let name = super::fields::show(&key);
        let known: Vec<String> = table.pairs::<String, Value>().filter_map(|p| p.ok().map(|(k, _)| k)).collect();
        Err(at.fail(lua, unknown(whose, what, &name, known.iter().map(String::as_str))))
    })?;
    let at = place.clone();
    let new_index = lua.create_function(move |lua, (_, key, _): (Value, Value, Value)| -> mlua::Result<()> {
        let name = super::fields::show(&key);
        Err(at.fail(
            lua,
            match whose {
                "global" => format!("{name} is assigned as a global; write `local` before it"),
                _ => format!("{name} is assigned, but {whose} cannot be changed"),
            },
        ))
    })?;
    metatable.raw_set("__index", index)?;
    metatable.raw_set("__newindex", new_index)?;
    metatable.raw_set("__metatable", false)?;
    let stand_in = lua.create_table()?;
    stand_in.set_metatable(Some(metatable))?;
    Ok(stand_in)
}

/// `unknown axis \`x\`; did you mean \`y\`?`
pub(super) fn unknown<'a>(whose: &str, what: &str, shown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const FORBIDDEN: [&str; 13] = [
        "os",
        "io",
        "debug",
        "package",
        "load",
        "loadfile",
        "dofile",
        "pcall",
        "xpcall",
        "setmetatable",
        "getmetatable",
        "collectgarbage",
        "coroutine",
    ];
    let plain = shown.trim_matches('`');
    if whose == "global" && FORBIDDEN.contains(&plain) {
        return format!(
            "{shown} does not exist here: evaluating a sweep has no side effects; its `workload` says what is run"
        );
    }
    if whose == "global" && plain == "el" {
        return format!("no global is called {shown}; begin the script with `local el = require \"energylens\"`");
    }
    let lacks = if whose == "global" {
        format!("no global is called {shown}")
    } else {
        format!("{whose} has no {what} {shown}")
    };
    match schema::nearest(plain, known) {
        Some(near) => format!("{lacks}; did you mean `{near}`?"),
        None => lacks,
    }
}

/// The names that a script sees.
fn library(lua: &Lua, place: &Place, log: &Arc<Mutex<Vec<String>>>) -> mlua::Result<Table> {
    const BASE: [&str; 12] = [
        "assert", "error", "ipairs", "next", "pairs", "rawequal", "rawget", "rawlen", "select", "tonumber", "tostring",
        "type",
    ];
    const LIBRARIES: [&str; 4] = ["math", "string", "table", "utf8"];
    let globals = lua.globals();
    let library = lua.create_table()?;
    for name in BASE.iter().chain(&LIBRARIES) {
        library.raw_set(*name, globals.raw_get::<Value>(*name)?)?;
    }
    let math: Table = globals.raw_get("math")?;
    // The same script must give the same plan; the sweep's seed is the only randomness.
    for name in ["random", "randomseed"] {
        math.raw_set(name, Value::Nil)?;
    }
    bound_strings(lua, place, &globals.raw_get("string")?)?;
    bound_tables(lua, place, &globals.raw_get("table")?)?;
    let kept = Arc::clone(log);
    let print = lua.create_function(move |lua, values: Variadic<Value>| {
        let mut line = String::new();
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                line.push('\t');
            }
            let text = match value {
                Value::Table(_) | Value::Function(_) | Value::UserData(_) => value.type_name().to_owned(),
                other => {
                    lua.coerce_string(other.clone())?.map_or_else(|| other.to_string(), |s| Ok(s.to_string_lossy()))?
                }
            };
            line.push_str(&text);
        }
        if let Some((cut, _)) = line.char_indices().nth(LOG_LIMITS.1) {
            line.truncate(cut);
        }
        if let Ok(mut lines) = kept.lock()
            && lines.len() < LOG_LIMITS.0
        {
            lines.push(line);
        }
        Ok(())
    })?;
    library.raw_set("print", print)?;
    Ok(library)
}

fn bound_strings(lua: &Lua, place: &Place, string: &Table) -> mlua::Result<()> {
    string.raw_set("dump", Value::Nil)?;
    let original: Function = string.raw_get("rep")?;
    let at = place.clone();
    let repeat =
        lua.create_function(move |lua, (text, count, separator): (mlua::LuaString, i64, Option<mlua::LuaString>)| {
            let piece = text.as_bytes().len() + separator.as_ref().map_or(0, |s| s.as_bytes().len());
            // Lua loops over the count even where there is nothing to repeat.
            let steps = u64::try_from(count).unwrap_or(0).saturating_mul(piece.max(1) as u64);
            if steps > LONGEST_REPEAT_BYTES {
                return Err(
                    at.fail(lua, format!("string.rep makes at most {LONGEST_REPEAT_BYTES} bytes; asked for {steps}"))
                );
            }
            original.call::<Value>((text, count, separator))
        })?;
    string.raw_set("rep", repeat)?;
    for name in ["find", "match", "gmatch", "gsub"] {
        let original: Function = string.raw_get(name)?;
        let at = place.clone();
        let bounded = lua.create_function(move |lua, arguments: MultiValue| {
            let bytes = |i: usize| match arguments.get(i) {
                Some(Value::String(s)) => s.as_bytes().to_vec(),
                _ => Vec::new(),
            };
            // Each of these may backtrack over the whole text, one inside the other, from every place in it.
            let loops = bytes(1).iter().filter(|b| matches!(b, b'*' | b'+' | b'-' | b'?')).count() + 1;
            let steps = ((bytes(0).len() + 2) as f64).powf(loops as f64);
            if steps > STEPS {
                return Err(at.fail(lua, format!("string.{name}: the pattern may take too long on a text this long")));
            }
            original.call::<MultiValue>(arguments)
        })?;
        string.raw_set(name, bounded)?;
    }
    Ok(())
}

fn bound_tables(lua: &Lua, place: &Place, table: &Table) -> mlua::Result<()> {
    for name in ["insert", "remove", "move"] {
        let original: Function = table.raw_get(name)?;
        let at = place.clone();
        let bounded = lua.create_function(move |lua, arguments: MultiValue| {
            let number = |i: usize| arguments.get(i).and_then(|v| v.as_f64().or_else(|| v.as_i64().map(|n| n as f64)));
            let steps = match (name, arguments.front()) {
                ("move", _) => number(2).unwrap_or(0.0) - number(1).unwrap_or(0.0),
                (_, Some(Value::Table(t))) => t.raw_len() as f64,
                _ => 0.0,
            };
            if steps > STEPS {
                return Err(at.fail(lua, format!("table.{name}: the table is too long")));
            }
            original.call::<MultiValue>(arguments)
        })?;
        table.raw_set(name, bounded)?;
    }
    Ok(())
}
