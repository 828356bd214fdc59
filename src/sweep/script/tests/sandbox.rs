//! What no script can do: hang, fill the memory, reach outside.

use super::*;

/// Scripts that would hang, fill the memory or reach outside.
#[test]
fn no_script_gets_out_or_goes_on_for_ever() {
    let cases = [
        ("\nwhile true do end", "t.lua:2: the script takes more than "),
        ("local function f() return f() end return f()", "the script takes more than "),
        ("local function f() return 1 + f() end return f()", "memory"),
        ("local s = 'x' while true do s = s .. s end", "memory"),
        ("local t = {} for i = 1, 1e9 do t[i] = {} end", "memory"),
        ("return ('x'):rep(1e10)", "string.rep makes at most"),
        ("return (''):rep(1e15)", "string.rep makes at most"),
        ("return (('a'):rep(30000)):find('.-.-.-.-b')", "the pattern may take too long"),
        ("return (('a'):rep(3000)):gsub('a*a*a*b', '')", "the pattern may take too long"),
        ("return table.move({}, 1, 2^53, 2)", "table.move: the table is too long"),
        // Lua takes texts for numbers.
        ("return table.move({}, '1', '100000000000', 2)", "table.move: the table is too long"),
        ("return ('('):rep(1e6):find('%b()')", "the pattern may take too long"),
        ("return ('a'):rep(1e6):find('(a)%1%1%1b')", "the pattern may take too long"),
        ("return ('b'):rep(2^20):find('[' .. ('a'):rep(2^20) .. ']')", "the pattern may take too long"),
        ("return ('a'):rep(1e6):find(('a'):rep(5e5) .. 'b', 1, true)", "the pattern may take too long"),
        ("local s = ('x'):rep(2^20) while true do s:upper() end", "t.lua:1: the script takes more than "),
        ("local s = ('x'):rep(2^20) while true do s:find('y') end", "t.lua:1: the script takes more than "),
        ("local f = ('x'):rep(2^20):gmatch('y') while true do f() end", "t.lua:1: the script takes more than "),
        ("local s = ('x'):rep(2^20) while true do utf8.len(s) end", "t.lua:1: the script takes more than "),
        (
            "local t = {} for i = 1, 5e5 do t[i] = i end while true do table.insert(t, 1, 0) end",
            "t.lua:1: the script takes more than ",
        ),
        (
            "local t = {} for i = 1, 5e5 do t[i] = i end while true do table.concat(t) end",
            "t.lua:1: the script takes more than ",
        ),
        (
            "local t, a, b = {}, ('x'):rep(2^19) .. '1', ('x'):rep(2^19) .. '2' for i = 1, 1e5 do t[i] = i % 2 == 0 and a or b end\n\
             table.sort(t)",
            "t.lua:2: table.sort: the table is too long",
        ),
        ("local t = {} for i = 0, 52 do t[2^i | 0] = 1 end return table.insert(t, 1, 1)", ""),
        ("return table.concat({}, '', 1, 2^53)", "invalid value"),
        ("return table.unpack({}, 1, 1e9)", "too many results"),
        ("return pcall(error)", "`pcall` does not exist here"),
        ("return setmetatable({}, {})", "`setmetatable` does not exist here"),
        ("return load('return 1')", "`load` does not exist here"),
        ("return io.open('/etc/passwd')", "`io` does not exist here"),
        ("return string.dump(print)", "t.lua:1: string has no function `dump`"),
        ("return math.random()", "t.lua:1: math has no function `random`"),
        ("string.rep = nil", "t.lua:1: `rep` is assigned, but string cannot be changed"),
        ("math.floor = nil", "t.lua:1: `floor` is assigned, but math cannot be changed"),
        ("('').upper = nil", "t.lua:1: attempt to index a string value"),
        ("local n = 1\nreturn table.concat({ {} })", "t.lua:2: invalid value (at index 1) in table for 'concat'"),
        ("return coroutine.wrap(print)", "`coroutine` does not exist here"),
        ("return _G", "no global is called `_G`"),
        ("print = nil", "`print` is assigned as a global"),
        ("error({})", ""),
        ("error('with a message')", "t.lua:1: with a message"),
        ("\x1bLua", ""),
    ];
    for (script, expected) in cases {
        let message = plan(script).unwrap_err();
        assert!(message.starts_with("t.lua:") && message.contains(expected), "{script}: {message}");
        assert!(!message.contains("traceback"), "{script}: {message}");
    }
}

#[test]
fn a_where_that_hangs_is_stopped() {
    let source = sweep(&[("where", "function(p) while true do end end")]);
    assert!(plan(&source).unwrap_err().contains("the script takes more than "));
}

/// Nothing counts what an operator does to two long texts; the processor's time ends it all the same.
#[test]
fn operators_on_long_texts_do_not_go_on_for_ever() {
    let script = "local a, b = ('x'):rep(2^20) .. 'y', ('x'):rep(2^20) .. 'y' while true do local c = a < b end";
    let message = plan(script).unwrap_err();
    assert!(message.starts_with("t.lua:1: the script takes more than "), "{message}");
}

#[test]
fn a_pipe_is_no_card_and_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, mode) = (dir.path().join("pipe"), rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let source = format!("{HEAD}return el.card_from 'pipe'");
    let message = Plan::from_source("t.lua", &source, dir.path(), &mut |_| ()).unwrap_err().to_string();
    assert!(
        message.starts_with("t.lua:2: model configuration ") && message.contains("is a pipe or a device"),
        "{message}"
    );
}
