//! The sandbox: which parts of Lua a sweep has, how much memory and time.
//!
//! A hook counts instructions, but it is not called inside library functions written in C. So those that one call can
//! keep busy for ever are left out (`pcall` and `setmetatable` too: the one could swallow the limit's error, the other
//! install finalisers in which hooks are off) or [bounded], and what they do counts like instructions. What neither
//! counts (two long texts compared, a table searched for its next key) is bounded by the time of the processor.

mod bounded;
mod budget;

use std::sync::{Arc, Mutex};

use mlua::chunk::ChunkMode;
use mlua::{HookTriggers, Lua, LuaOptions, StdLib, Table, Value, Variadic, VmState};

pub(super) use self::budget::Budget;
use self::budget::HOOK_EVERY;
use super::place::Place;
use crate::schema;

/// Memory that a script may use.
const MEMORY_BYTES: usize = 64 << 20;
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

impl Sandbox {
    pub(super) fn new(place: &Place) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        let used = Budget::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let library = library(&lua, place, &used, &log)?;
        let environment = read_only(&lua, place, library.clone(), "global", "name")?;
        let sandbox = Self { lua, library, environment, used, log };
        sandbox.limit(place)?;
        Ok(sandbox)
    }

    fn limit(&self, place: &Place) -> mlua::Result<()> {
        self.lua.set_memory_limit(MEMORY_BYTES)?;
        let (used, at) = (self.used.clone(), place.clone());
        let triggers = HookTriggers::new().every_nth_instruction(HOOK_EVERY);
        self.lua.set_hook(triggers, move |_, debug| match used.instructions() {
            Ok(()) => Ok(VmState::Continue),
            Err(why) => Err(at.fail_at(debug.current_line().unwrap_or(1), why)),
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
fn library(lua: &Lua, place: &Place, used: &Budget, log: &Arc<Mutex<Vec<String>>>) -> mlua::Result<Table> {
    const BASE: [&str; 12] = [
        "assert", "error", "ipairs", "next", "pairs", "rawequal", "rawget", "rawlen", "select", "tonumber", "tostring",
        "type",
    ];
    const LIBRARIES: [&str; 4] = ["math", "string", "table", "utf8"];
    let globals = lua.globals();
    let library = lua.create_table()?;
    for name in BASE {
        library.raw_set(name, globals.raw_get::<Value>(name)?)?;
    }
    let math: Table = globals.raw_get("math")?;
    // The same script must give the same plan; the sweep's seed is the only randomness.
    for name in ["random", "randomseed"] {
        math.raw_set(name, Value::Nil)?;
    }
    bounded::strings(lua, place, used, &globals.raw_get("string")?)?;
    bounded::utf8(lua, place, used, &globals.raw_get("utf8")?)?;
    bounded::tables(lua, place, used, &globals.raw_get("table")?)?;
    // What one place of a script puts into a library every other would get.
    for name in LIBRARIES {
        library.raw_set(name, read_only(lua, place, globals.raw_get(name)?, name, "function")?)?;
    }
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
