//! What a script does, told apart from how it is written down.
//!
//! A script's own `run` is no data that two plans could be compared by. Its words are: those of the whole script, since
//! `run` may call whatever stands beside it, without comments and line breaks, and without `slurm = { ... }`, which says
//! where runs run and not what they do.

use sha2::{Digest, Sha256};

use super::hex;

/// A hash of the script's words, hex.
pub(super) fn hash(source: &str) -> String {
    let words = words(source);
    let mut hash = Sha256::new();
    let mut place = 0;
    while let Some(word) = words.get(place) {
        if let Some(behind) = behind_slurm(&words, place) {
            place = behind;
            continue;
        }
        // No word has a zero byte that Lua would take.
        hash.update(word.as_bytes());
        hash.update([0]);
        place += 1;
    }
    hex(&hash.finalize(), 64)
}

/// Where a `slurm = { ... }` that begins at `place` is over, its comma included.
fn behind_slurm(words: &[&str], place: usize) -> Option<usize> {
    let ["slurm", "=", "{"] = words.get(place..place + 3)? else { return None };
    let mut depth = 0_usize;
    for (i, word) in words.iter().enumerate().skip(place + 2) {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let has_comma = words.get(i + 1).is_some_and(|w| matches!(*w, "," | ";"));
            return Some(i + 1 + usize::from(has_comma));
        }
    }
    None
}

/// Names, numbers, strings and single signs, in order. What is no Lua gives some words too; it is never run.
fn words(source: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (length, is_word) = if let Some(comment) = rest.strip_prefix("--") {
            let length = long_bracket(comment).unwrap_or_else(|| comment.find('\n').unwrap_or(comment.len()));
            (2 + length, false)
        } else if first.is_whitespace() {
            (first.len_utf8(), false)
        } else if first == '"' || first == '\'' {
            (string(rest, first), true)
        } else if let Some(length) = long_bracket(rest) {
            (length, true)
        } else if is_name(first) {
            (rest.find(|c| !is_name(c)).unwrap_or(rest.len()), true)
        } else {
            (first.len_utf8(), true)
        };
        let (word, behind) = rest.split_at(length);
        if is_word {
            found.push(word);
        }
        rest = behind;
    }
    found
}

/// Length of the `[[ ... ]]` or `[==[ ... ]==]` that `text` begins with.
fn long_bracket(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('[')?;
    let level = inner.len() - inner.trim_start_matches('=').len();
    inner.get(level..)?.strip_prefix('[')?;
    let end = format!("]{}]", "=".repeat(level));
    Some(text.find(&end).map_or(text.len(), |at| at + end.len()))
}

/// Length of the quoted string that `text` begins with.
fn string(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_script_is_written_down_does_not_matter_and_what_it_does_does() {
        let plain = "local function ask(n)\n  return { \"a -- b\", n - 1, [[x]] }\nend\nreturn { run = ask, n = 1 }";
        let same = [
            "-- first\nlocal function ask(n) return { \"a -- b\", n-1, [[x]] } end --[[ two\nlines ]] return { run = ask, n = 1 }",
            "local function ask(n)\n\n\n  return { \"a -- b\", n - 1, --[==[ ]] ]==] [[x]] }\nend\nreturn { run = ask, n = 1 } -- end",
            "local function ask(n)\n  return { \"a -- b\", n - 1, [[x]] }\nend\nreturn { run = ask, \
             slurm = { options = { time = 3, [\"x}\"] = {} } }, n = 1 }",
        ];
        for other in same {
            assert_eq!(hash(other), hash(plain), "{other}");
        }
        for (from, to) in
            [("n - 1", "n - 2"), ("a -- b", "a -- c"), ("a -- b", "a --  b"), ("[[x]]", "[[y]]"), ("ask, n", "ask; n")]
        {
            let other = plain.replace(from, to);
            assert_ne!(other, plain);
            assert_ne!(hash(&other), hash(plain), "{other}");
        }
    }

    #[test]
    fn words_are_as_by_hand() {
        assert_eq!(
            words("a=b..'it\\'s'--x\n[=[ ]] ]=] 1.5"),
            ["a", "=", "b", ".", ".", "'it\\'s'", "[=[ ]] ]=]", "1", ".", "5"]
        );
        // What is never closed ends with the text.
        assert_eq!(words("x = 'open"), ["x", "=", "'open"]);
        assert_eq!(words("--[[ open"), [""; 0]);
    }
}
