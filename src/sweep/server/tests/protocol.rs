//! What the load sends, what it accepts and what it refuses.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use super::super::stream::{Request, Transcript};
use super::super::{Completion, Load, Target};
use super::talker::{Answer, Talker, proper, stream};

fn load(talker: &Talker, request: &Value) -> Load {
    let request = request.as_object().cloned().unwrap_or_default();
    let timeout = Duration::from_secs(300);
    Load::new(Target { url: talker.url.clone(), model: Some("m".to_owned()), request, timeout }, 7, "", None)
}

fn never() -> impl FnMut() -> Option<String> {
    || None
}

#[test]
fn every_sequence_of_a_batch_is_in_flight_at_once_with_its_exact_tokens() {
    // This server answers nobody before the 24th request is there: fewer in flight would never end.
    let talker = Talker::new(24, Box::new(|body| Ok(proper(body))));
    let mut load = load(&talker, &json!({ "cache_prompt": false, "min_tokens": null }));
    for _ in 0..2 {
        let served = load.batch((24, 50, 6), &mut never()).expect("a batch");
        assert_eq!(served.completions.len(), 24);
        for Completion { ttft, last, gaps, output_tokens, .. } in &served.completions {
            assert_eq!((gaps.len(), *output_tokens), (5, 6));
            // From the first token to the last is the sum of the gaps, but for the end's own chunk.
            assert!(gaps.iter().sum::<Duration>() <= *last - *ttft && *last <= served.duration);
        }
    }
    let bodies = talker.bodies.lock().expect("bodies");
    let first = bodies.first().and_then(Value::as_object).expect("a body");
    let mut rest: Map<String, Value> = first.clone();
    rest.remove("prompt");
    let expected = json!({
        "model": "m", "max_tokens": 6, "ignore_eos": true, "temperature": 1.0, "stream": true,
        "stream_options": { "include_usage": true }, "cache_prompt": false,
    });
    assert_eq!(Value::Object(rest), expected);
    let prompts: Vec<&Vec<Value>> = bodies.iter().filter_map(|b| b["prompt"].as_array()).collect();
    assert!(prompts.len() == 48 && prompts.iter().all(|p| p.len() == 50));
    let beginnings: HashSet<String> = prompts.iter().map(|p| format!("{} {}", p[0], p[1])).collect();
    assert_eq!(beginnings.len(), 48, "no prompt may begin like another, in its batch or in the next");
    assert!(talker.connections.load(Ordering::Relaxed) <= 48, "at most one for each request");
}

#[test]
fn a_thousand_are_in_flight_at_once() {
    // Client and server are one program here, and the server holds each connection twice.
    if getrlimit(Resource::Nofile).maximum.is_some_and(|most| most < 4096) {
        eprintln!("skipped: no 4096 files may be open at once here");
        return;
    }
    let talker = Talker::new(1000, Box::new(|body| Ok(proper(body))));
    let served = load(&talker, &Value::Null).batch((1000, 4, 2), &mut never()).expect("a batch");
    assert_eq!(served.completions.len(), 1000);
}

fn refusal(answer: Box<Answer>) -> String {
    let talker = Talker::new(1, answer);
    load(&talker, &Value::Null).batch((1, 40, 4), &mut never()).expect_err("a refusal")
}

#[test]
fn what_is_not_exactly_what_was_asked_for_is_refused_with_both_numbers() {
    let fewer = refusal(Box::new(|_| Ok(stream(40, 3, "null"))));
    assert!(fewer.contains("3 output tokens (finish_reason length), and 4"), "{fewer}");
    let longer = refusal(Box::new(|_| Ok(stream(41, 4, "null"))));
    assert!(longer.contains("41 input tokens, and 40 were sent"), "{longer}");
    let cached = refusal(Box::new(|_| Ok(stream(40, 4, r#"{"cached_tokens":32}"#))));
    assert!(cached.contains("32 of 40") && cached.contains("prefix caching off"), "{cached}");
    let uncounted =
        refusal(Box::new(|body| Ok(proper(body).into_iter().filter(|e| !e.contains("prompt_tokens")).collect())));
    assert!(uncounted.contains("token counts"), "{uncounted}");
    let broken_off = refusal(Box::new(|body| Ok(proper(body).into_iter().take(2).collect())));
    assert!(broken_off.contains("broke the stream off"), "{broken_off}");
    let empty = refusal(Box::new(|_| Ok(vec!["data: [DONE]".to_owned()])));
    assert!(empty.contains("without a token"), "{empty}");
    let garbage = refusal(Box::new(|_| Ok(vec!["data: {\"choices\": 7}".to_owned()])));
    assert!(garbage.contains("no completion"), "{garbage}");
}

#[test]
fn a_servers_own_words_are_passed_on() {
    let full = r#"{"error":{"message":"the request exceeds\nthe available context size","type":"x","code":400}}"#;
    let refused = refusal(Box::new(move |_| Err((400, full.to_owned()))));
    assert_eq!(refused, "the server answers with status 400: the request exceeds the available context size");
    let vllm = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}"#;
    assert!(refusal(Box::new(move |_| Err((400, vllm.to_owned())))).ends_with("length is 4096 tokens."));
    assert!(refusal(Box::new(|_| Err((503, "busy".to_owned())))).ends_with("status 503: busy"));
    let within = r#"data: {"error":{"message":"EngineCore encountered an issue","type":"InternalServerError"}}"#;
    let broke = refusal(Box::new(move |_| Ok(vec![within.to_owned()])));
    assert_eq!(broke, "the server broke off: EngineCore encountered an issue");
}

#[test]
fn a_failed_request_waits_for_the_others_and_counts_as_one() {
    let talker = Talker::new(3, Box::new(|_| Ok(stream(1, 1, "null"))));
    let all = load(&talker, &Value::Null).batch((3, 2, 1), &mut never()).expect_err("wrong counts");
    assert!(all.starts_with("3 of 3 requests failed: the server counts 1 input tokens"), "{all}");
}

#[test]
fn a_connection_that_ended_as_the_request_went_out_is_made_anew_once() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let answer = move |body: &Value| match counted.fetch_add(1, Ordering::Relaxed) {
        1 => Err((0, String::new())),
        _ => Ok(proper(body)),
    };
    let talker = Talker::new(1, Box::new(answer));
    let mut load = load(&talker, &Value::Null);
    for _ in 0..2 {
        load.batch((1, 8, 2), &mut never()).expect("a batch");
    }
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    let mute = refusal(Box::new(|_| Err((0, String::new()))));
    assert!(mute.contains("does not answer"), "{mute}");
}

#[test]
fn a_batch_is_given_up_when_its_owner_says_so() {
    // Nobody answers: the second request never comes.
    let talker = Talker::new(2, Box::new(|body| Ok(proper(body))));
    let mut asked = 0;
    let mut given_up = || {
        asked += 1;
        (asked > 2).then(|| "the server died".to_owned())
    };
    let why = load(&talker, &Value::Null).batch((1, 8, 2), &mut given_up).expect_err("no answer");
    assert_eq!(why, "the server died");
    let nobody = Talker { url: "http://127.0.0.1:9".to_owned(), ..talker };
    let why = load(&nobody, &Value::Null).batch((1, 8, 2), &mut never()).expect_err("nobody there");
    assert!(why.contains("does not answer"), "{why}");
    assert!(load(&nobody, &Value::Null).batch((0, 8, 2), &mut never()).is_err_and(|e| e.contains("expected 1 to")));
}

/// Ten milliseconds after `start` for each step.
fn at(start: Instant, step: u32) -> Instant {
    start + Duration::from_millis(10) * step
}

#[test]
fn times_are_those_of_the_chunks() {
    let start = Instant::now();
    let request = Request { body: String::new(), input_tokens: 9, output_tokens: 4 };
    let mut transcript = Transcript::default();
    let token = br#"data: {"choices":[{"text":"a","finish_reason":null}]}"#;
    let half = br#"data: {"choices":[{"text":"","finish_reason":null}]}"#;
    let last = br#"data: {"choices":[{"text":"b","finish_reason":"length"}]}"#;
    let end = br#"data: {"choices":[{"text":"","finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":4},"timings":{"cache_n":0,"prompt_ms":28.5,"predicted_ms":60.0}}"#;
    for (step, line) in
        [(3, &token[..]), (4, half), (4, b": keep-alive"), (7, token), (9, last), (9, end), (9, b"data: [DONE]")]
    {
        transcript.take(line, at(start, step)).expect("a line");
    }
    let done = transcript.completion(start, &request).expect("a completion");
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    assert_eq!((ms(done.ttft).round(), ms(done.last).round()), (30.0, 90.0));
    assert_eq!(done.gaps.iter().map(|g| ms(*g).round()).collect::<Vec<_>>(), [10.0, 30.0, 20.0]);
    // 60 ms for the three tokens after the first.
    assert!(done.tpot_s().is_some_and(|s| (s - 0.020).abs() < 1e-9));
    assert_eq!(done.timings.map(|t| t.prompt_ms), Some(28.5));
    let single = Completion { output_tokens: 1, ..done };
    assert_eq!(single.tpot_s(), None);
}
