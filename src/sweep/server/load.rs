//! The load: a batch of streamed requests, all of them in flight at once.
//!
//! Each request has a thread of its own, which sleeps in the kernel until a chunk comes, and so stamps it without delay.
//! The threads wait at a gate until the last of them is there. Connections stay open from batch to batch, and are opened
//! one after the other: a thousand at once would overrun a server's queue.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};
use ureq::Agent;

use super::http::{self, MOST_REQUESTS};
use super::prompt::Prompts;
use super::stream::{self, Completion, Request};

/// A thread of a request does little; a thousand of them must not need gigabytes.
const STACK_BYTES: usize = 512 << 10;
/// How often whoever waits for a batch looks whether it still makes sense.
const LOOK: Duration = Duration::from_millis(50);
/// Beyond the time that a batch may take, until it is given up: the requests notice by themselves first.
const GRACE: Duration = Duration::from_secs(5);

/// What is the same for every request to a deployment.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the server answers, without a path.
    pub url: String,
    /// What requests call the model.
    pub model: Option<String>,
    /// More fields of each request.
    pub request: Map<String, Value>,
    /// How long a batch may take.
    pub timeout: Duration,
}

/// Sends batches to one deployment.
#[derive(Debug)]
pub struct Load {
    target: Target,
    agent: Agent,
    prompts: Prompts,
    /// The next batch of the same shape: made while the one before it runs, so that nothing waits for it.
    ready: Vec<Request>,
}

/// A batch that was served.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// From sending the requests to the last token of the last.
    pub duration: Duration,
    /// Every request, in no order.
    pub completions: Vec<Completion>,
}

impl Load {
    /// For a server with a vocabulary of so many tokens, with prompts that `seed` and `salt` decide.
    pub fn new(target: Target, seed: u64, salt: &str, vocab_size: Option<u32>) -> Self {
        allow_open_files();
        let agent = http::agent(target.timeout);
        Self { target, agent, prompts: Prompts::new(seed, salt, vocab_size), ready: Vec::new() }
    }

    /// Makes the requests of the next batch, unless they are there: tens of thousands of tokens for each of hundreds of
    /// sequences take longer than sending them, and the GPUs would idle meanwhile.
    pub fn make_ready(&mut self, (batch_size, input_tokens, output_tokens): (u32, u32, u32)) {
        let count = batch_size as usize;
        let fits = |r: &Request| r.input_tokens == input_tokens && r.output_tokens == output_tokens;
        if count <= MOST_REQUESTS && (self.ready.len() != count || !self.ready.iter().all(fits)) {
            self.ready = self.prepare(count, input_tokens, output_tokens);
        }
    }

    /// Has `batch_size` requests served; `given_up` is asked now and then, and an answer ends the wait.
    pub fn batch(
        &mut self,
        (batch_size, input_tokens, output_tokens): (u32, u32, u32),
        given_up: &mut dyn FnMut() -> Option<String>,
    ) -> Result<Served, String> {
        let count = batch_size as usize;
        if count == 0 || count > MOST_REQUESTS {
            return Err(format!("batch_size is {count}; expected 1 to {MOST_REQUESTS} requests in flight"));
        }
        self.make_ready((batch_size, input_tokens, output_tokens));
        let requests = std::mem::take(&mut self.ready);
        let gate = Arc::new(Gate::default());
        let (sender, receiver) = mpsc::channel();
        let url = format!("{}/v1/completions", self.target.url);
        for request in requests {
            let (agent, url) = (self.agent.clone(), url.clone());
            let (gate_of, sender_of) = (Arc::clone(&gate), sender.clone());
            let started = thread::Builder::new().name("request".to_owned()).stack_size(STACK_BYTES).spawn(move || {
                if gate_of.wait() {
                    // Whoever gave the batch up does not listen any more.
                    let _ = sender_of.send(stream::run(&agent, &url, &request));
                }
            });
            if let Err(e) = started {
                gate.open(false);
                return Err(format!("{count} requests at once need as many threads, and one cannot be started: {e}"));
            }
        }
        drop(sender);
        let begin = Instant::now();
        gate.open(true);
        self.ready = self.prepare(count, input_tokens, output_tokens);
        let deadline = begin + self.target.timeout + GRACE;
        let (mut completions, mut failed) = (Vec::with_capacity(count), Vec::new());
        // Those that go on after one has failed are waited for too: the next batch must not meet them.
        while completions.len() + failed.len() < count {
            match receiver.recv_timeout(LOOK) {
                Ok(Ok(completion)) => completions.push(completion),
                Ok(Err(why)) => failed.push(why),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(why) = given_up() {
                        return Err(why);
                    }
                    if Instant::now() >= deadline {
                        return Err(format!("the batch took longer than {:.0} s", self.target.timeout.as_secs_f64()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err("a request was lost".to_owned()),
            }
        }
        if let Some(why) = failed.first() {
            let which =
                if count == 1 { String::new() } else { format!("{} of {count} requests failed: ", failed.len()) };
            return Err(format!("{which}{why}"));
        }
        let end = completions.iter().map(|c| c.sent + c.last).max().unwrap_or(begin);
        let first = completions.iter().map(|c| c.sent).min().unwrap_or(begin);
        Ok(Served { duration: end.saturating_duration_since(first), completions })
    }

    fn prepare(&mut self, count: usize, input_tokens: u32, output_tokens: u32) -> Vec<Request> {
        let mut fields = Map::from_iter([
            ("max_tokens".to_owned(), json!(output_tokens)),
            ("min_tokens".to_owned(), json!(output_tokens)),
            ("ignore_eos".to_owned(), json!(true)),
            // Greedy decoding of a random prompt falls into a loop, and a loop visits few of a model's experts.
            ("temperature".to_owned(), json!(1.0)),
            ("stream".to_owned(), json!(true)),
            ("stream_options".to_owned(), json!({ "include_usage": true })),
        ]);
        fields.extend(self.target.model.iter().map(|model| ("model".to_owned(), json!(model))));
        fields.extend(self.target.request.clone());
        // A field that a server does not know, and refuses, can be taken out by giving it no value.
        fields.retain(|_, value| !value.is_null());
        let rest = Value::Object(fields).to_string();
        let rest = rest.strip_prefix('{').unwrap_or_default();
        let request = |prompts: &mut Prompts| Request {
            body: format!("{{\"prompt\":{},{rest}", prompts.draw(input_tokens)),
            input_tokens,
            output_tokens,
        };
        (0..count).map(|_| request(&mut self.prompts)).collect()
    }
}

/// Each request holds a connection, and the usual limit of 1024 open files is one that a program may raise for itself.
///
/// Where it cannot, the requests beyond it fail and say so.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Where the threads of a batch wait for each other.
#[derive(Debug, Default)]
struct Gate {
    /// Whether to go on or to give up, once it is known.
    decided: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Gate {
    fn open(&self, go_on: bool) {
        *self.decided.lock().unwrap_or_else(PoisonError::into_inner) = Some(go_on);
        self.changed.notify_all();
    }

    fn wait(&self) -> bool {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(go_on) = *decided {
                return go_on;
            }
            decided = self.changed.wait(decided).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_made_ready_is_the_one_that_is_sent() {
        let target = Target {
            url: "http://127.0.0.1:9".to_owned(),
            model: None,
            request: Map::new(),
            timeout: Duration::from_secs(60),
        };
        let mut load = Load::new(target, 7, "", None);
        let made = |load: &Load| load.ready.iter().map(|r| r.body.clone()).collect::<Vec<_>>();
        load.make_ready((3, 20, 5));
        let first = made(&load);
        assert!(first.len() == 3 && first.iter().all(|body| body.contains("\"max_tokens\":5")), "{first:?}");
        load.make_ready((3, 20, 5));
        assert_eq!(made(&load), first, "made twice");
        load.make_ready((2, 20, 1));
        let other = made(&load);
        assert!(other.len() == 2 && other.iter().all(|body| body.contains("\"max_tokens\":1")), "{other:?}");
    }
}
