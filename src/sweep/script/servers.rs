//! `el.server` and the servers that are ready made: which options they take, and what they are started with.

use std::collections::BTreeMap;

use mlua::{Lua, LuaSerdeExt, Value};

use super::fields::{Fields, show};
use super::place::Place;
use super::workloads::{argv, engine, environment, gpus};
use crate::sweep::design::PRECISIONS;
use crate::sweep::server::{SERVER_NAMES, ServerSpec};
use crate::sweep::template;
use crate::sweep::workload::WorkloadSpec;

/// Words that an option may add to a command, at most.
const MOST_WORDS: usize = 1_000;
/// A day: no server takes longer to load.
const LONGEST_WAIT_S: f64 = 86_400.0;
/// Options of every server.
const COMMON: [&str; 12] = [
    "gpus",
    "url",
    "port",
    "env",
    "health_path",
    "ready_timeout_s",
    "batch_timeout_s",
    "model_paths",
    "served_model",
    "vocab_size",
    "precision_args",
    "request",
];
/// Fields of requests that the load itself decides.
const OWN_FIELDS: [&str; 6] = ["prompt", "max_tokens", "stream", "stream_options", "model", "n"];

/// A server that needs no command: its options, and what they change.
pub(super) struct ReadyMade {
    name: &'static str,
    engine: &'static str,
    program: &'static [&'static str],
    words: &'static [&'static str],
    precision_words: &'static [(&'static str, [&'static str; 2])],
    request: &'static [(&'static str, bool)],
}

/// vLLM since 0.8. Prefix caching is off: a prefill that was seen before would cost nothing.
pub(super) const VLLM: ReadyMade = ReadyMade {
    name: "el.vllm",
    engine: "vllm",
    program: &["vllm", "serve"],
    words: &[
        "{model_path}",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--tensor-parallel-size",
        "{tensor_parallel}",
        "--pipeline-parallel-size",
        "{pipeline_parallel}",
        "--data-parallel-size",
        "{data_parallel}",
        "--max-model-len",
        "{context_tokens}",
        "--max-num-seqs",
        "{max_batch_size}",
        "--no-enable-prefix-caching",
    ],
    precision_words: &TORCH_PRECISIONS,
    request: &[],
};

/// SGLang since 0.4.
pub(super) const SGLANG: ReadyMade = ReadyMade {
    name: "el.sglang",
    engine: "sglang",
    program: &["python3", "-m", "sglang.launch_server"],
    words: &[
        "--model-path",
        "{model_path}",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--tp-size",
        "{tensor_parallel}",
        "--pp-size",
        "{pipeline_parallel}",
        "--dp-size",
        "{data_parallel}",
        "--context-length",
        "{context_tokens}",
        "--max-running-requests",
        "{max_batch_size}",
        "--disable-radix-cache",
    ],
    precision_words: &TORCH_PRECISIONS,
    request: &[],
};

/// llama.cpp since the autumn of 2025. Prompts are kept neither in their slot nor in the host's memory.
pub(super) const LLAMA_SERVER: ReadyMade = ReadyMade {
    name: "el.llama_server",
    engine: "llama.cpp",
    program: &["llama-server"],
    words: &[
        "--model",
        "{model_path}",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--parallel",
        "{max_batch_size}",
        "--ctx-size",
        "{cache_tokens}",
        "--n-gpu-layers",
        "999",
        "--cache-ram",
        "0",
    ],
    precision_words: &[],
    request: &[("cache_prompt", false)],
};

const TORCH_PRECISIONS: [(&str, [&str; 2]); 4] = [
    ("bf16", ["--dtype", "bfloat16"]),
    ("fp16", ["--dtype", "float16"]),
    ("fp32", ["--dtype", "float32"]),
    ("fp8", ["--quantization", "fp8"]),
];

/// `el.server { argv = { ... } | url = "...", engine = "...", ... }`
pub(super) fn server(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<WorkloadSpec> {
    let known: Vec<&str> = ["argv", "engine"].into_iter().chain(COMMON).collect();
    let fields = Fields::new(lua, place, value, "el.server", "option", &known, 0)?;
    let is_started = !fields.get("argv")?.is_nil();
    if !is_started && fields.get("url")?.is_nil() {
        return Err(fields.fail("argv", "el.server needs `argv`, how it is started, or the `url` of one that runs"));
    }
    let argv = if is_started { Some(argv(&fields, &SERVER_NAMES)?) } else { None };
    let spec = ServerSpec { engine: engine(&fields)?, argv, ..ServerSpec::default() };
    finish(lua, &fields, spec)
}

/// `el.vllm { ... }`, `el.sglang { ... }`, `el.llama_server { ... }`
pub(super) fn ready_made(lua: &Lua, place: &Place, value: &Value, made: &ReadyMade) -> mlua::Result<WorkloadSpec> {
    let known: Vec<&str> = ["program", "args"].into_iter().chain(COMMON).collect();
    let none = Value::Table(lua.create_table()?);
    let value = if value.is_nil() { &none } else { value };
    let fields = Fields::new(lua, place, value, made.name, "option", &known, 0)?;
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<String>>();
    let mut spec = ServerSpec { engine: made.engine.to_owned(), ..ServerSpec::default() };
    if fields.get("url")?.is_nil() {
        let program = match words(&fields, "program")? {
            words if words.is_empty() => owned(made.program),
            words => words,
        };
        spec.argv = Some([program, owned(made.words), words(&fields, "args")?].concat());
        spec.precision_argv = made.precision_words.iter().map(|(p, words)| ((*p).to_owned(), owned(words))).collect();
    } else if let Some(key) = ["program", "args", "port"].into_iter().find(|k| fields.get(k).is_ok_and(|v| !v.is_nil()))
    {
        return Err(
            fields.fail(key, format!("`{key}` is for a server that is started; `url` is one that runs already"))
        );
    }
    spec.request = made.request.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    finish(lua, &fields, spec)
}

/// The options that all servers have.
fn finish(lua: &Lua, fields: &Fields<'_>, mut spec: ServerSpec) -> mlua::Result<WorkloadSpec> {
    let text = |key: &str, expected: &str| match fields.get(key)? {
        Value::Nil => Ok(None),
        _ => fields.text(key, expected).map(Some),
    };
    spec.gpus = gpus(fields)?;
    if let Some(url) = text("url", "http://127.0.0.1:PORT")? {
        spec.url = url;
    }
    if !fields.get("port")?.is_nil() {
        if !fields.get("url")?.is_nil() {
            return Err(fields.fail("port", "`port` stands beside `url`, which has one"));
        }
        spec.url = format!("http://127.0.0.1:{}", fields.whole("port", 1, 65_535, None)?);
    }
    spec.env = environment(fields, Some(&SERVER_NAMES))?;
    if let Some(path) = text("health_path", "a path such as \"/health\"")? {
        if !path.starts_with('/') || path.contains(char::is_whitespace) {
            return Err(
                fields.fail("health_path", format!("`health_path` is `{path}`; expected a path such as \"/health\""))
            );
        }
        spec.health_path = path;
    }
    spec.ready_timeout_s = fields.number("ready_timeout_s", 0.1, LONGEST_WAIT_S, Some(spec.ready_timeout_s))?;
    spec.batch_timeout_s = fields.number("batch_timeout_s", 0.1, LONGEST_WAIT_S, Some(spec.batch_timeout_s))?;
    spec.served_model = text("served_model", "the name that requests give")?;
    if !fields.get("vocab_size")?.is_nil() {
        spec.vocab_size = Some(fields.whole("vocab_size", 16, 100_000_000, None)? as u32);
    }
    for (model, path) in texts(fields, "model_paths")? {
        template::check(&path, &[]).map_err(|e| fields.fail("model_paths", e))?;
        spec.model_paths.insert(model, path);
    }
    for (precision, words) in lists(fields, "precision_args")? {
        if !PRECISIONS.contains(&precision.as_str()) {
            let known = PRECISIONS.join(", ");
            let message = format!("`precision_args` has `{precision}`; expected one of {known}");
            return Err(fields.fail("precision_args", message));
        }
        spec.precision_argv.insert(precision, words);
    }
    spec.request.extend(request(lua, fields)?);
    spec.check_words().map_err(|e| fields.fail("url", e))?;
    Ok(WorkloadSpec::Server(spec))
}

/// `request`: more fields of each request, as JSON.
fn request(lua: &Lua, fields: &Fields<'_>) -> mlua::Result<BTreeMap<String, serde_json::Value>> {
    let value = fields.get("request")?;
    if value.is_nil() {
        return Ok(BTreeMap::new());
    }
    let fail = |why: String| fields.fail("request", format!("`request` is no table of a request's fields: {why}"));
    let json: serde_json::Value = lua.from_value(value).map_err(|e| fail(e.to_string()))?;
    let serde_json::Value::Object(map) = json else { return Err(fail(format!("it is {json}"))) };
    if let Some(own) = map.keys().find(|key| OWN_FIELDS.contains(&key.as_str())) {
        let instead = if own == "model" { "; see `served_model`" } else { "" };
        return Err(fields.fail("request", format!("`request` has `{own}`, which the load decides itself{instead}")));
    }
    Ok(map.into_iter().collect())
}

/// A list of words, templates all of them; empty where it is absent.
fn words(fields: &Fields<'_>, key: &'static str) -> mlua::Result<Vec<String>> {
    match fields.get(key)? {
        Value::Nil => Ok(Vec::new()),
        value => list(fields, key, &value),
    }
}

fn list(fields: &Fields<'_>, key: &'static str, value: &Value) -> mlua::Result<Vec<String>> {
    let list = Fields::at(fields.place, fields.line_of(key), value, key, "field", &[], MOST_WORDS)?;
    let mut words = Vec::new();
    for i in 1..=MOST_WORDS {
        let word = match list.positional(i)? {
            Value::Nil => break,
            Value::String(text) => text.to_str()?.to_owned(),
            Value::Integer(n) => n.to_string(),
            Value::Number(n) => n.to_string(),
            other => {
                let message = format!("`{key}` has {} at {i}; expected a text or a number", show(&other));
                return Err(fields.fail(key, message));
            }
        };
        template::check(&word, &SERVER_NAMES).map_err(|e| fields.fail(key, e))?;
        if word.contains('\0') {
            return Err(fields.fail(key, format!("`{key}` has a word with a zero byte in it at {i}")));
        }
        words.push(word);
    }
    Ok(words)
}

/// A table whose keys and values `read` takes.
fn pairs<T>(
    fields: &Fields<'_>,
    key: &'static str,
    expected: &str,
    read: impl Fn(&Value) -> mlua::Result<Option<T>>,
) -> mlua::Result<Vec<(String, T)>> {
    let value = fields.get(key)?;
    let fail = || fields.fail(key, format!("`{key}` is {}; expected {expected}", show(&value)));
    let Value::Table(table) = &value else {
        return if value.is_nil() { Ok(Vec::new()) } else { Err(fail()) };
    };
    let mut found = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let name = match &name {
            Value::String(text) => text.to_str().ok().map(|t| t.to_owned()),
            _ => None,
        };
        found.push((name.ok_or_else(fail)?, read(&value)?.ok_or_else(fail)?));
    }
    Ok(found)
}

fn texts(fields: &Fields<'_>, key: &'static str) -> mlua::Result<Vec<(String, String)>> {
    pairs(fields, key, "a table of texts by name", |value| {
        Ok(match value {
            Value::String(text) => text.to_str().ok().map(|t| t.to_owned()).filter(|t| !t.contains('\0')),
            _ => None,
        })
    })
}

fn lists(fields: &Fields<'_>, key: &'static str) -> mlua::Result<Vec<(String, Vec<String>)>> {
    pairs(fields, key, "a table of lists of words by precision", |value| match value {
        Value::Table(_) => list(fields, key, value).map(Some),
        _ => Ok(None),
    })
}

#[cfg(test)]
mod tests;
