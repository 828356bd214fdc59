//! Words of a command with the point's values in them: `--tensor-parallel-size {tensor_parallel}`.
//!
//! `{name}` is replaced inside of a word, and a word stays one word whatever the value is; `{{` and `}}` are braces.

use super::Point;
use crate::schema;

/// Values that a point has before anybody gave it an identifier, and after.
const SHARED: [&str; 11] = [
    "model",
    "architecture",
    "gpu_model",
    "precision",
    "num_gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "batch_size",
    "input_tokens",
    "output_tokens",
];
/// Names that stand for a value of the point: in words, environments and `run.point`.
pub const POINT_NAMES: [&str; 13] = with(["engine", "point_id"]);
/// Names of what `where` may ask of a point that has not been chosen yet.
pub(super) const CANDIDATE_NAMES: [&str; 13] = with(["params", "kv_capacity_tokens"]);

const fn with(own: [&'static str; 2]) -> [&'static str; 13] {
    let mut all = [own[0]; 13];
    all[1] = own[1];
    let mut i = 0;
    while i < SHARED.len() {
        all[i + 2] = SHARED[i];
        i += 1;
    }
    all
}

/// Every `{name}` of `word`, or what is wrong with its braces.
pub fn names(word: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    walk(word, &mut |piece| {
        if let Piece::Name(name) = piece {
            found.push(name.to_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Refuses a name in `word` that is neither the point's nor one of `more`, with the nearest that is.
pub fn check(word: &str, more: &[&str]) -> Result<(), String> {
    for name in names(word)? {
        let known = || POINT_NAMES.into_iter().chain(more.iter().copied());
        if !known().any(|k| k == name) {
            let near = schema::nearest(&name, known()).map_or(String::new(), |n| format!("; did you mean `{{{n}}}`?"));
            return Err(format!("`{word}` has the unknown name `{{{name}}}`{near}"));
        }
    }
    Ok(())
}

/// `word` with its names replaced: those of `more` first, then the point's.
pub fn expand(word: &str, point: &Point, more: &[(&str, &str)]) -> Result<String, String> {
    let mut text = String::new();
    walk(word, &mut |piece| {
        match piece {
            Piece::Text(c) => text.push(c),
            Piece::Name(name) => match more.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => text.push_str(value),
                None => text.push_str(&value(point, name).ok_or_else(|| format!("`{{{name}}}` has no value here"))?),
            },
        }
        Ok(())
    })?;
    Ok(text)
}

/// The point's value called `name`.
pub fn value(p: &Point, name: &str) -> Option<String> {
    Some(match name {
        "model" => p.model.model.clone(),
        "architecture" => p.model.architecture.as_str().to_owned(),
        "engine" => p.engine.clone(),
        "gpu_model" => p.gpu.gpu_model.clone(),
        "precision" => p.precision.clone(),
        "num_gpus" => p.num_gpus().to_string(),
        "tensor_parallel" => p.tensor_parallel.to_string(),
        "pipeline_parallel" => p.pipeline_parallel.to_string(),
        "data_parallel" => p.data_parallel.to_string(),
        "batch_size" => p.batch_size.to_string(),
        "input_tokens" => p.input_tokens.to_string(),
        "output_tokens" => p.output_tokens.to_string(),
        "point_id" => p.point_id.clone(),
        _ => return None,
    })
}

enum Piece<'a> {
    Text(char),
    Name(&'a str),
}

fn walk(word: &str, take: &mut dyn FnMut(Piece<'_>) -> Result<(), String>) -> Result<(), String> {
    let mut rest = word;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or("");
        if matches!(c, '{' | '}') && after.starts_with(c) {
            take(Piece::Text(c))?;
            rest = after.get(1..).unwrap_or("");
        } else if c == '{' {
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| format!("`{word}` opens a brace and does not close it; write `{{{{` for a brace"))?;
            take(Piece::Name(name))?;
            rest = behind;
        } else if c == '}' {
            return Err(format!("`{word}` closes a brace that is not open; write `}}}}` for a brace"));
        } else {
            take(Piece::Text(c))?;
            rest = after;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_braces_kept() {
        assert_eq!(names("--tp={tensor_parallel},{port}"), Ok(vec!["tensor_parallel".into(), "port".into()]));
        assert_eq!(names("{{\"a\": 1}}"), Ok(vec![]));
        assert!(names("{oops").is_err_and(|e| e.contains("does not close")));
        assert!(names("oops}").is_err_and(|e| e.contains("not open")));
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        let wrong = check("--tp={tensor_paralel}", &["port"]).expect_err("no such name");
        assert!(wrong.contains("{tensor_parallel}"), "{wrong}");
        assert_eq!(check("{port}:{batch_size}", &["port"]), Ok(()));
    }
}
