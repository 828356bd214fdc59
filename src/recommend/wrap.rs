//! Text in lines of a width.

/// `text` as lines of at most `width` characters; the first begins with `first`, all others are indented.
pub(crate) fn wrapped(first: &str, text: &str, width: usize) -> String {
    let mut out = String::from(first);
    let mut length = first.chars().count();
    // Spaces alone: another blank keeps together what it stands between.
    for (i, word) in text.split(' ').enumerate() {
        let word_length = word.chars().count();
        if i > 0 && length + 1 + word_length > width {
            out.push_str("\n  ");
            length = 2;
        } else if i > 0 {
            out.push(' ');
            length += 1;
        }
        out.push_str(word);
        length += word_length;
    }
    out.push('\n');
    out
}

#[test]
#[cfg(test)]
fn words_and_width_are_kept() {
    let text = ["counter"; 40].join(" ");
    let out = wrapped("- `x`: ", &text, 120);
    assert_eq!(out.matches("counter").count(), 40);
    // 7 characters, then 14 words of 7 with 13 spaces make 118; a fifteenth would make 126.
    assert_eq!(out.lines().next().map(|l| l.len()), Some(118));
    assert!(out.lines().skip(1).all(|l| l.starts_with("  counter") && l.len() <= 120));
}
