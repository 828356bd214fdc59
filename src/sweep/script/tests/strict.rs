//! What is refused although Lua would let it pass, and what the messages name.

use super::*;

#[test]
fn a_point_cannot_be_written() {
    for (body, expected) in [
        ("p.x = 1 return true", "t.lua:8: `x` is assigned, but a point cannot be changed"),
        ("p.batch_size = 1 return true", "t.lua:8: `batch_size` is assigned, but a point cannot be changed"),
        ("p.model = nil return true", "t.lua:8: `model` is assigned, but a point cannot be changed"),
    ] {
        assert_eq!(plan(&sweep(&[("where", &format!("function(p) {body} end"))])).unwrap_err(), expected);
    }
    let sees_all =
        "function(p) return p.batch_size <= 64 and p.input_tokens == 512 and p.num_gpus == p.tensor_parallel end";
    assert_eq!(plan(&sweep(&[("where", sees_all)])).unwrap().points.len(), 14);
}

/// Such a plan depends on the order of the questions.
#[test]
fn a_where_that_remembers_is_refused() {
    for body in ["n = n + 1 return n % 2 == 0", "n = n + 1 return n <= 10", "n = n + 1 return n % 3 ~= 0"] {
        let source = format!("local n = 0 {}", sweep(&[("where", &format!("function(p) {body} end"))]));
        let message = plan(&source).unwrap_err();
        assert!(message.starts_with("t.lua:8: `where` answers "), "{body}: {message}");
        assert!(message.contains("asked again for the same point"), "{body}: {message}");
    }
}

#[test]
fn what_cannot_be_laid_out_names_the_field_that_it_hangs_on() {
    let none = plan(&sweep(&[("where", "function(p) return false end")])).unwrap_err();
    assert_eq!(
        none,
        "t.lua:6: the design asks for 1 point at least; 0 are feasible; left out: 14 of 14 combinations: 14 by `where`"
    );
    let prefill = [
        ("design", "el.latin_hypercube { points = 5, prefill_share = 0.2 }"),
        ("where", "function(p) return p.output_tokens > 1 end"),
    ];
    let message = plan(&sweep(&prefill)).unwrap_err();
    // 2 deployments, 64 batch sizes.
    assert_eq!(
        message,
        "t.lua:6: the design asks for 1 prefill-only points; 0 are feasible; left out: 128 of 128 combinations: 128 by \
         `where`"
    );
    let huge = sweep(&[(
        "axes",
        "{ model = \"llama-2-70b\", gpu_model = \"a100-80gb\",\n\
                                 batch_size = 1, input_tokens = 1, output_tokens = 1 }",
    )]);
    assert!(plan(&huge).unwrap_err().starts_with("t.lua:4: none of the 1 combinations of model, GPU and degrees"));
}

#[test]
fn values_are_shown_shortly() {
    for (seed, shown) in [("1e300", "1e300"), ("-2.5e-9", "-2.5e-9"), ("0.5", "0.5"), ("0/0", "NaN")] {
        let message = plan(&sweep(&[("seed", seed)])).unwrap_err();
        assert!(message.starts_with(&format!("t.lua:8: `seed` is {shown}; expected")), "{message}");
    }
    let axes = "{ model = \"llama-2-7b\", gpu_model = \"a100\", batch_size = el.factorial {}, input_tokens = 1, output_tokens = 1 }";
    let message = plan(&sweep(&[("axes", axes)])).unwrap_err();
    assert!(message.starts_with("t.lua:4: axis `batch_size` has a design; expected a whole number"), "{message}");
}

#[test]
fn a_notice_as_long_as_the_time_is_refused() {
    let message = plan(&sweep(&[("slurm", "{ time = 1, stop_early_s = 60 }")])).unwrap_err();
    assert!(message.starts_with("t.lua:8: `stop_early_s` is 60, and `time` is 60 s: "), "{message}");
    for fine in ["{ time = 1, stop_early_s = 59 }", "{ time = 0, stop_early_s = 600 }", "{ stop_early_s = 600 }"] {
        plan(&sweep(&[("slurm", fine)])).unwrap();
    }
    let message = plan(&sweep(&[("slurm", "{ merge = { tme = 3 } }")])).unwrap_err();
    assert_eq!(message, "t.lua:8: merge has no option `tme`; did you mean `time`?");
}
