//! What a server is, as plain data: part of the plan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::MOST_REQUESTS;
use crate::sweep::{Point, template};

/// An OpenAI-compatible inference server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// What the `engine` column says.
    pub engine: String,
    /// GPUs of the node.
    pub gpus: u32,
    /// How it is started, a [template] for each word; `None` for one that is running already.
    pub argv: Option<Vec<String>>,
    /// More words for points of a precision, templates too.
    pub precision_argv: BTreeMap<String, Vec<String>>,
    /// Environment of the started one, templates too.
    pub env: BTreeMap<String, String>,
    /// Where it answers: `http://127.0.0.1:{port}`.
    pub url: String,
    /// Path that answers with 200 when it is ready.
    pub health_path: String,
    /// How long it may take to be ready, s.
    pub ready_timeout_s: f64,
    /// How long one batch may take, s.
    pub batch_timeout_s: f64,
    /// What `{model_path}` is, by the model's name, a template; the name itself where it is not listed.
    pub model_paths: BTreeMap<String, String>,
    /// What requests call the model, a template; else the name that the server itself gives first.
    pub served_model: Option<String>,
    /// Token ids of prompts lie below it; else what the server says, or a bound that every common vocabulary passes.
    pub vocab_size: Option<u32>,
    /// More fields of each request.
    pub request: BTreeMap<String, Value>,
}

impl Default for ServerSpec {
    fn default() -> Self {
        Self {
            engine: "server".to_owned(),
            gpus: 8,
            argv: None,
            precision_argv: BTreeMap::new(),
            env: BTreeMap::new(),
            url: "http://127.0.0.1:{port}".to_owned(),
            health_path: "/health".to_owned(),
            ready_timeout_s: 1800.0,
            batch_timeout_s: 3600.0,
            model_paths: BTreeMap::new(),
            served_model: None,
            vocab_size: None,
            request: BTreeMap::new(),
        }
    }
}

/// Names beside the point's that words of a server's command may hold.
///
/// `context_tokens` is room for the longest sequence of the deployment's points and a few tokens more, since engines
/// differ by one in what they call full; `cache_tokens` is that room for every sequence of the largest batch.
pub const SERVER_NAMES: [&str; 5] = ["port", "model_path", "max_batch_size", "context_tokens", "cache_tokens"];

/// Values of [`SERVER_NAMES`].
type Values = Vec<(&'static str, String)>;

/// The words of a command and the variables of its environment.
type Command = (Vec<String>, Vec<(String, String)>);

/// Tokens of a context beyond the longest sequence.
const SPARE_TOKENS: u32 = 16;

impl ServerSpec {
    /// Every word that makes a server what it is.
    fn words(&self) -> impl Iterator<Item = &String> {
        self.argv.iter().flatten().chain(self.precision_argv.values().flatten()).chain(self.env.values())
    }

    /// Refuses words with unknown names, and an address that is none.
    pub fn check_words(&self) -> Result<(), String> {
        for word in self.words().chain(&self.served_model) {
            template::check(word, &SERVER_NAMES)?;
        }
        template::check(&self.url, &["port"])?;
        if self.argv.is_none() && self.url.contains('{') {
            return Err(format!("the url `{}` of a running server cannot have {{names}}", self.url));
        }
        super::http::check_url(&self.url)
    }

    fn names(&self, name: &str) -> bool {
        // A path may say the precision, for whoever takes the path.
        self.words()
            .chain(self.model_paths.values())
            .any(|word| template::names(word).is_ok_and(|names| names.iter().any(|n| n == name)))
    }

    /// Refuses points that no server can be sent, or that would all get one and the same server although they ask for
    /// different ones.
    pub fn check_points(&self, points: &[Point]) -> Result<(), String> {
        let Some(first) = points.first() else { return Ok(()) };
        if let Some(most) = points.iter().map(|p| p.batch_size).max().filter(|most| *most as usize > MOST_REQUESTS) {
            return Err(format!(
                "points have batch_size up to {most}; a server is sent at most {MOST_REQUESTS} requests at once: give the \
                 axis smaller values"
            ));
        }
        let other = points.iter().find(|p| !p.shares_deployment(first));
        if self.argv.is_none() {
            return match other {
                None => Ok(()),
                Some(other) => Err(format!(
                    "a server that is running already is one deployment, and the sweep has several ({} and {}); give \
                     each axis of the deployment one value, or let the sweep start the server",
                    deployment(first),
                    deployment(other)
                )),
            };
        }
        for name in ["tensor_parallel", "pipeline_parallel", "data_parallel"] {
            let degree = |p: &Point| template::value(p, name).and_then(|d| d.parse().ok()).unwrap_or(1_u32);
            if let Some(most) = points.iter().map(degree).max().filter(|most| *most > 1)
                && !self.names(name)
            {
                return Err(format!(
                    "points have {name} up to {most}, and no word of the server's command has {{{name}}}: all of them \
                     would be measured on the same server"
                ));
            }
        }
        if points.iter().any(|p| p.model.model != first.model.model)
            && !self.names("model")
            && !self.names("model_path")
        {
            return Err("points have several models, and no word of the server's command has {model_path} or {model}"
                .to_owned());
        }
        let told = |p: &Point| self.precision_argv.contains_key(&p.precision) || self.names("precision");
        if let Some(other) = points.iter().find(|p| p.precision != first.precision)
            && let Some(untold) = [first, other].into_iter().find(|p| !told(p))
        {
            return Err(format!(
                "points have several precisions, and the server's command does not depend on them: give \
                 `precision_args` for {} or write {{precision}} into a word",
                untold.precision
            ));
        }
        if let Some(unused) = self.model_paths.keys().find(|name| !points.iter().any(|p| p.model.model == **name)) {
            let near = crate::schema::nearest(unused, points.iter().map(|p| p.model.model.as_str()));
            let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            return Err(format!("`model_paths` has `{unused}`, which is no model of the sweep{near}"));
        }
        Ok(())
    }

    /// Values of [`SERVER_NAMES`] for the deployment of `point`, of which `largest` has the largest sizes.
    pub(in crate::sweep) fn values(&self, point: &Point, largest: &Point, port: Option<u16>) -> Result<Values, String> {
        let context = largest.input_tokens.saturating_add(largest.output_tokens).saturating_add(SPARE_TOKENS);
        let name = &point.model.model;
        let path = self.model_paths.get(name).map(|path| template::expand(path, point, &[]));
        let mut values = vec![
            ("model_path", path.unwrap_or_else(|| Ok(name.clone()))?),
            ("max_batch_size", largest.batch_size.to_string()),
            ("context_tokens", context.to_string()),
            ("cache_tokens", (u64::from(context) * u64::from(largest.batch_size)).to_string()),
        ];
        // One that was chosen, or the url's own.
        let port = port.or_else(|| super::http::port(&self.url));
        values.extend(port.map(|port| ("port", port.to_string())));
        Ok(values)
    }

    /// The command of every server that these points need, in order; its port is not chosen yet.
    pub fn commands(&self, points: &[Point]) -> Result<Vec<Vec<String>>, String> {
        if self.argv.is_none() {
            return Ok(Vec::new());
        }
        let command = |largest: Point| {
            let mut values = self.values(&largest, &largest, None)?;
            // Behind a fixed one, which is found first.
            values.push(("port", "PORT".to_owned()));
            self.command(&largest, &values).map(|(argv, _)| argv)
        };
        super::deployments(points).into_iter().map(command).collect()
    }

    /// The words and the environment with which the server of `point` is started.
    pub(in crate::sweep) fn command(
        &self,
        point: &Point,
        values: &[(&'static str, String)],
    ) -> Result<Command, String> {
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let more = self.precision_argv.get(&point.precision);
        let words = self.argv.iter().flatten().chain(more.into_iter().flatten());
        let argv = words.map(|word| template::expand(word, point, &values)).collect::<Result<_, _>>()?;
        let env = self.env.iter().map(|(name, word)| Ok((name.clone(), template::expand(word, point, &values)?)));
        Ok((argv, env.collect::<Result<_, String>>()?))
    }
}

fn deployment(p: &Point) -> String {
    format!(
        "{} {} with tensor_parallel {}, pipeline_parallel {}, data_parallel {}",
        p.model.model, p.precision, p.tensor_parallel, p.pipeline_parallel, p.data_parallel
    )
}
