//! One streamed completion: when its tokens came, and whether it is what was asked for.
//!
//! The answer is a stream of server-sent events: lines `data: {...}`, the last one `data: [DONE]`. A line's instant is
//! taken when it has been read, before it is parsed.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use ureq::Agent;

/// Longest line of a stream: an error with a server's whole traceback in it.
const LONGEST_LINE_BYTES: u64 = 1 << 20;
/// Of what a server says is wrong, so much is passed on.
const LONGEST_MESSAGE: usize = 400;

/// A request, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The body.
    pub body: String,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens to be generated.
    pub output_tokens: u32,
}

/// What came of a request. Instants are counted from when it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// When it was sent.
    pub sent: Instant,
    /// To the first output token.
    pub ttft: Duration,
    /// To the last output token.
    pub last: Duration,
    /// Between the arrivals of tokens, one less than there were arrivals.
    pub gaps: Vec<Duration>,
    /// Output tokens.
    pub output_tokens: u32,
    /// The server's own measurements, where it gives them.
    pub timings: Option<Timings>,
}

impl Completion {
    /// Mean time per output token after the first, s.
    pub fn tpot_s(&self) -> Option<f64> {
        let after_first = self.output_tokens.checked_sub(1).filter(|n| *n > 0)?;
        Some((self.last.saturating_sub(self.ttft)).as_secs_f64() / f64::from(after_first))
    }
}

/// What llama.cpp says about a completion.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Timings {
    /// Tokens that were not computed, because an earlier prompt had begun with them.
    #[serde(default)]
    pub cache_n: u64,
    /// Time of the prefill, ms.
    pub prompt_ms: f64,
    /// Time of the decode, ms.
    pub predicted_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    error: Option<Value>,
    /// Errors of SGLang and TensorRT-LLM: `{"object": "error", "message": ...}`.
    message: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// What a stream has said so far.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    first: Option<Instant>,
    last: Option<Instant>,
    gaps: Vec<Duration>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    finish_reason: Option<String>,
    done: bool,
}

impl Transcript {
    /// Takes a line that was read at `now`.
    pub(super) fn take(&mut self, line: &[u8], now: Instant) -> Result<(), String> {
        let line = line.trim_ascii();
        let (data, is_error) = match (line.strip_prefix(b"data:"), line.strip_prefix(b"error:")) {
            (Some(data), _) => (data.trim_ascii(), false),
            // Older builds of llama.cpp.
            (_, Some(data)) => (data.trim_ascii(), true),
            // Comments, which keep a connection alive, and the names of events.
            _ => return Ok(()),
        };
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        if is_error {
            return Err(format!("the server broke off: {}", short(&String::from_utf8_lossy(data))));
        }
        let chunk: Chunk = serde_json::from_slice(data)
            .map_err(|e| format!("the server streams what is no completion ({e}): {}", short(&text(data))))?;
        if let Some(error) = chunk.error.filter(|e| !e.is_null()) {
            return Err(format!("the server broke off: {}", short(&said(&error))));
        }
        let choices = chunk.choices.unwrap_or_default();
        if let Some(message) = chunk.message.filter(|_| choices.is_empty()) {
            return Err(format!("the server broke off: {}", short(&said(&message))));
        }
        for choice in &choices {
            let ends = choice.finish_reason.as_ref().filter(|r| !r.is_null()).map(said);
            // A token's text may be empty (half a character); a chunk that has neither text nor token ends the stream.
            let has_token = ends.is_none() || choice.text.as_ref().is_some_and(|t| !t.is_empty());
            self.finish_reason = ends.or(self.finish_reason.take());
            if has_token && self.first.is_some() {
                self.gaps.extend(self.last.map(|last| now.saturating_duration_since(last)));
            }
            // The end comes in the same breath as a last token whose text was held back.
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
        self.usage = chunk.usage.or(self.usage.take());
        self.timings = chunk.timings.or(self.timings.take());
        Ok(())
    }

    /// The completion, if it is exactly what was asked for.
    pub(super) fn completion(self, sent: Instant, request: &Request) -> Result<Completion, String> {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return Err("the server ended the stream without a token".to_owned());
        };
        let Some(usage) = self.usage else {
            let how = if self.done { "ended the stream without" } else { "broke the stream off before" };
            return Err(format!("the server {how} its token counts (`usage`, asked for with `stream_options`)"));
        };
        let cached = usage.prompt_tokens_details.and_then(|d| d.cached_tokens);
        let cached = cached.or(self.timings.map(|t| t.cache_n)).unwrap_or(0);
        // Random prompts may share a first token by chance, and no more.
        if cached > 1 + u64::from(request.input_tokens / 20) {
            return Err(format!(
                "the server took {cached} of {} input tokens from its prefix cache, so their prefill cost nothing; \
                 start it with prefix caching off",
                request.input_tokens
            ));
        }
        if usage.prompt_tokens != u64::from(request.input_tokens) {
            return Err(format!(
                "the server counts {} input tokens, and {} were sent",
                usage.prompt_tokens, request.input_tokens
            ));
        }
        if usage.completion_tokens != u64::from(request.output_tokens) {
            let why = self.finish_reason.map_or(String::new(), |r| format!(" (finish_reason {})", short(&r)));
            return Err(format!(
                "the server generated {} output tokens{why}, and {} were asked for; it must honour `ignore_eos` and \
                 have room for them",
                usage.completion_tokens, request.output_tokens
            ));
        }
        Ok(Completion {
            sent,
            ttft: first.saturating_duration_since(sent),
            last: last.saturating_duration_since(sent),
            gaps: self.gaps,
            output_tokens: request.output_tokens,
            timings: self.timings,
        })
    }
}

/// Sends a request and reads its stream to the end.
pub(super) fn run(agent: &Agent, url: &str, request: &Request) -> Result<Completion, String> {
    let sent = Instant::now();
    let send = || agent.post(url).content_type("application/json").send(request.body.as_bytes());
    let answer = match send() {
        // Servers end a connection after some time or after so many requests (cpp-httplib: 100), and one that is ended as
        // the request goes out has not taken it. A server that is gone will not take the second either.
        Err(ureq::Error::Io(e)) if is_closed(e.kind()) => send(),
        other => other,
    };
    let mut response = answer.map_err(|e| format!("the server does not answer: {e}"))?;
    let status = response.status().as_u16();
    let mut reader = BufReader::with_capacity(16 << 10, response.body_mut().as_reader());
    if status != 200 {
        let mut bytes = Vec::new();
        // What cannot be read of a refusal does not change it.
        let _ = reader.take(LONGEST_LINE_BYTES).read_to_end(&mut bytes);
        return Err(format!("the server answers with status {status}: {}", short(&refusal(&bytes))));
    }
    let mut transcript = Transcript::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(n) if n as u64 == LONGEST_LINE_BYTES => return Err("the server streams a line without end".to_owned()),
            Ok(_) => transcript.take(&line, Instant::now())?,
            Err(e) => return Err(format!("the server broke the stream off: {e}")),
        }
    }
    transcript.completion(sent, request)
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}

/// The message in the body of a refusal, or the body.
fn refusal(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|v| v.get("error").or(Some(v)));
    match message.and_then(|e| e.get("message").or_else(|| e.get("detail"))) {
        Some(message) => said(message),
        None => text(body),
    }
}

/// A value as people write it: texts without quotes, of an error its message.
fn said(value: &Value) -> String {
    match (value, value.get("message")) {
        (Value::String(text), _) => text.clone(),
        (_, Some(Value::String(message))) => message.clone(),
        _ => value.to_string(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line, not too long, without what would move a terminal's cursor.
pub(super) fn short(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((cut, _)) => format!("{} ...", line.get(..cut).unwrap_or_default()),
        None => line,
    }
}
