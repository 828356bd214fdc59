//! Library functions whose work is bounded and counted.

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::{Budget, Place};

/// Longest text that `string.rep` makes.
const LONGEST_REPEAT_BYTES: u64 = 1 << 20;
/// Steps that one library call may take: pattern matching, moving of tables.
const STEPS: f64 = 1e7;
/// Bytes that are read or written in about the time of an instruction.
const BYTES_PER_STEP: u64 = 16;

/// Puts `bound` before the function called `name`: what it says is how many steps the call takes at most, and of which
/// thing there is too much if these are too many for one call.
fn replace(
    lua: &Lua,
    (place, used): (&Place, &Budget),
    (library, table): (&'static str, &Table),
    name: &'static str,
    bound: impl Fn(&Lua, &MultiValue) -> mlua::Result<(f64, &'static str)> + Send + 'static,
) -> mlua::Result<()> {
    let original: Function = table.raw_get(name)?;
    let (at, used) = (place.clone(), used.clone());
    let bounded = lua.create_function(move |lua, arguments: MultiValue| {
        let (steps, too_much) = bound(lua, &arguments)?;
        if steps > STEPS {
            return Err(at.fail(lua, format!("{library}.{name}: {too_much}")));
        }
        used.spend(steps as u64).map_err(|why| at.fail(lua, why))?;
        original.call::<MultiValue>(arguments).map_err(|e| at.placed(lua, e))
    })?;
    table.raw_set(name, bounded)
}

/// Bytes of an argument that is a text.
fn bytes(arguments: &MultiValue, i: usize) -> u64 {
    match arguments.get(i) {
        Some(Value::String(s)) => s.as_bytes().len() as u64,
        _ => 0,
    }
}

fn all_bytes(arguments: &MultiValue) -> u64 {
    (0..arguments.len()).map(|i| bytes(arguments, i)).sum()
}

/// An argument that Lua takes for a number: a text of digits too.
fn number(lua: &Lua, arguments: &MultiValue, i: usize) -> mlua::Result<Option<f64>> {
    match arguments.get(i) {
        Some(value) => lua.coerce_number(value.clone()),
        None => Ok(None),
    }
}

/// Those of `string`.
pub(super) fn strings(lua: &Lua, place: &Place, used: &Budget, string: &Table) -> mlua::Result<()> {
    const TOO_LONG: &str = "the text is too long";
    const SLOW: &str = "the pattern may take too long on a text this long";
    let limits = (place, used);
    string.raw_set("dump", Value::Nil)?;
    repeat(lua, limits, string)?;
    for name in ["lower", "upper", "reverse", "format", "pack", "unpack", "byte", "sub", "char"] {
        replace(lua, limits, ("string", string), name, |_, arguments| {
            Ok(((all_bytes(arguments) / BYTES_PER_STEP) as f64, TOO_LONG))
        })?;
    }
    for name in ["find", "match", "gsub"] {
        replace(lua, limits, ("string", string), name, move |_, arguments| {
            let is_plain =
                name == "find" && arguments.get(3).is_some_and(|v| v.as_boolean() != Some(false) && !v.is_nil());
            Ok((search_steps(arguments, is_plain), SLOW))
        })?;
    }
    // What it gives looks on from where it stopped, and may be called for ever.
    let original: Function = string.raw_get("gmatch")?;
    let (at, used) = (place.clone(), used.clone());
    let every_match = lua.create_function(move |lua, arguments: MultiValue| {
        let steps = search_steps(&arguments, false);
        if steps > STEPS {
            return Err(at.fail(lua, format!("string.gmatch: {SLOW}")));
        }
        let (at, used, each) = (at.clone(), used.clone(), 1 + bytes(&arguments, 0) / BYTES_PER_STEP);
        let next: Function = original.call(arguments).map_err(|e| at.placed(lua, e))?;
        lua.create_function(move |lua, ()| {
            used.spend(each).map_err(|why| at.fail(lua, why))?;
            next.call::<MultiValue>(()).map_err(|e| at.placed(lua, e))
        })
    })?;
    string.raw_set("gmatch", every_match)
}

fn repeat(lua: &Lua, (place, used): (&Place, &Budget), string: &Table) -> mlua::Result<()> {
    let original: Function = string.raw_get("rep")?;
    let (at, used) = (place.clone(), used.clone());
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
            used.spend(steps / BYTES_PER_STEP).map_err(|why| at.fail(lua, why))?;
            original.call::<Value>((text, count, separator)).map_err(|e| at.placed(lua, e))
        })?;
    string.raw_set("rep", repeat)
}

/// Steps of a search for a pattern (argument 2) in a text (argument 1), at most.
fn search_steps(arguments: &MultiValue, is_plain: bool) -> f64 {
    let pattern = match arguments.get(1) {
        Some(Value::String(s)) => s.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    // Each of these may go over the whole text, one inside the other, from every place in it.
    let repeated = pattern.iter().filter(|b| matches!(b, b'*' | b'+' | b'-' | b'?')).count();
    let balanced = pattern.windows(2).filter(|w| matches!(w, [b'%', b'b' | b'1'..=b'9'])).count();
    let loops = if is_plain { 1 } else { repeated + balanced + 1 };
    // A set is gone through for each character, and a plain text compared at each place.
    let each = (pattern.len() as f64 / 32.0).max(1.0);
    let steps = ((bytes(arguments, 0) + 2) as f64).powf(loops as f64) * each;
    // A single loop is over the text as fast as memory is read, or nearly.
    if loops == 1 { steps / 4.0 } else { steps }
}

/// Those of `utf8`.
pub(super) fn utf8(lua: &Lua, place: &Place, used: &Budget, utf8: &Table) -> mlua::Result<()> {
    for name in ["len", "codepoint", "offset", "char"] {
        replace(lua, (place, used), ("utf8", utf8), name, |_, arguments| {
            Ok(((all_bytes(arguments) / BYTES_PER_STEP) as f64, "the text is too long"))
        })?;
    }
    Ok(())
}

/// Those of `table`.
pub(super) fn tables(lua: &Lua, place: &Place, used: &Budget, table: &Table) -> mlua::Result<()> {
    const TOO_LONG: &str = "the table is too long";
    let limits = (place, used);
    let length = |arguments: &MultiValue| match arguments.front() {
        Some(Value::Table(t)) => t.raw_len() as f64,
        _ => 0.0,
    };
    // Those behind the place move by one, and without a place none does.
    replace(lua, limits, ("table", table), "insert", move |lua, arguments| {
        let place = if arguments.len() > 2 { number(lua, arguments, 1)? } else { None };
        Ok((place.map_or(0.0, |place| (length(arguments) - place).max(0.0)), TOO_LONG))
    })?;
    replace(lua, limits, ("table", table), "remove", move |lua, arguments| {
        let place = number(lua, arguments, 1)?;
        Ok((place.map_or(0.0, |place| (length(arguments) - place).max(0.0)), TOO_LONG))
    })?;
    replace(lua, limits, ("table", table), "move", |lua, arguments| {
        let (from, to) = (number(lua, arguments, 1)?, number(lua, arguments, 2)?);
        Ok(((to.unwrap_or(0.0) - from.unwrap_or(0.0)).max(0.0), TOO_LONG))
    })?;
    replace(lua, limits, ("table", table), "unpack", move |lua, arguments| {
        let from = number(lua, arguments, 1)?.unwrap_or(1.0);
        let to = number(lua, arguments, 2)?.unwrap_or_else(|| length(arguments));
        // Lua refuses more than a million by itself.
        Ok(((to - from).clamp(0.0, 1e6), TOO_LONG))
    })?;
    for name in ["concat", "sort"] {
        replace(lua, limits, ("table", table), name, move |_, arguments| {
            let steps = texts_of(arguments.front(), length(arguments));
            let rounds = if name == "sort" { length(arguments).max(2.0).log2() } else { 1.0 };
            Ok((steps * rounds, TOO_LONG))
        })?;
    }
    Ok(())
}

/// Steps of going once over the first `length` values of a table, whose texts are read.
fn texts_of(table: Option<&Value>, length: f64) -> f64 {
    let Some(Value::Table(table)) = table else { return 0.0 };
    if length > STEPS {
        return length;
    }
    let mut steps = length;
    for i in 1..=length as u64 {
        // A comparison reads the whole of the texts where they are equal.
        if let Ok(Value::String(text)) = table.raw_get::<Value>(i) {
            steps += (text.as_bytes().len() as u64 / BYTES_PER_STEP) as f64;
        }
        if steps > STEPS {
            break;
        }
    }
    steps
}
