//! The report in a real browser: no complaint, nothing asked of the network, nothing wider than the window, text that can
//! be read. Pictures are kept in target/report-page.

#[path = "support/browser.rs"]
mod browser;
// A part of it is for other tests.
#[allow(dead_code)]
#[path = "support/desk.rs"]
mod desk;

use std::fs;
use std::path::Path;

use browser::Browser;
use desk::Desk;
use serde_json::{Value, json};

/// Text whose colour is too near to what is behind it, by the rule of WCAG AA: 4.5 to 1, and 3 to 1 for large letters.
const PALE_TEXT: &str = r#"(() => {
  const parse = (colour) => {
    const parts = colour.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    return [parts[0], parts[1], parts[2], parts[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    const page = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((below, top) => over(top, below), page);
  };
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, style, noscript, title")) continue;
    const style = getComputedStyle(element);
    if (style.visibility === "hidden" || element.getClientRects().length === 0) continue;
    texts += 1;
    const back = behind(element);
    const colour = parse(element.closest("svg") && style.fill !== "none" ? style.fill : style.color);
    const [a, b] = [luminance(over(colour, back)), luminance(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) pale.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 60)}`);
  }
  return { texts, pale };
})()"#;

/// Elements that stick out of the window, apart from what lies in something that scrolls or clips.
const STICKING_OUT: &str = r#"(() => {
  const wide = document.documentElement.clientWidth;
  const held = (e) => { for (e = e.parentElement; e; e = e.parentElement) if (getComputedStyle(e).overflowX !== "visible" && e !== document.documentElement && e !== document.body) return true; return false; };
  const out = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > wide + 1 && !held(e));
  return { scrolls: document.documentElement.scrollWidth > wide, out: out.slice(0, 5).map((e) => e.outerHTML.slice(0, 120)) };
})()"#;

/// Tables of the recommendation that are cut off: wider than what holds them, so that whoever does not scroll sees a part.
const CUT_OFF: &str = r#"[...document.querySelectorAll('#recommendation .scroll')]
  .filter((box) => box.scrollWidth > box.clientWidth)
  .map((box) => `${box.querySelector('caption')?.textContent}: ${box.scrollWidth} in ${box.clientWidth}`)"#;

/// The demo's campaign, fitted, judged and reported with all there is.
fn report(desk: &Desk) {
    let sweeps = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sweeps");
    // Four of its twelve workloads are enough for a curve.
    let unseen = fs::read_to_string(sweeps.join("unseen.lua")).expect("a sweep");
    let few = unseen.replace("{ 3, 12, 48 }", "{ 3, 48 }").replace("{ 40, 350 }", "{ 40 }");
    assert_ne!(few, unseen);
    desk.put("unseen.lua", few);
    for line in [
        format!("run {}/demo.lua -o campaign", sweeps.display()),
        "run unseen.lua -o unseen".to_owned(),
        "report campaign --unseen unseen -o report.html --workload input_tokens=1024,output_tokens=256 --limit \
         mean_tpot_s=0.05 --arrival-rate 0.2 --price-per-kwh 0.25 --carbon-g-per-kwh 300 --price-per-gpu-hour 2 \
         --pue 1.2 --next 3"
            .to_owned(),
    ] {
        let ran = desk.type_in(&line);
        assert_eq!(ran.code, Some(0), "{}\n{}{}", ran.line, ran.stdout, ran.stderr);
    }
}

#[test]
fn the_report_is_sound_in_a_real_browser() {
    let Some(mut browser) = Browser::start() else { return };
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/report-page");
    fs::create_dir_all(&pictures).expect("a directory for pictures");
    let desk = Desk::new();
    report(&desk);
    browser.show(1440, "light", "screen");
    browser.open(&desk.path("report.html"));
    browser.wait_for("[...document.querySelectorAll('.chart')].every((c) => c.querySelector('svg'))");
    let charts = browser.evaluate("[...document.querySelectorAll('.chart')].map((c) => c.dataset.chart)");
    for chart in ["power", "curves", "terms", "tradeoff", "learning", "parity", "residuals"] {
        assert!(charts.as_array().is_some_and(|all| all.contains(&json!(chart))), "{chart} is missing: {charts}");
    }
    // Regret, choices and error, each in a panel of its own.
    let panels = browser.evaluate("document.querySelectorAll('.chart[data-chart=learning] .panels svg').length");
    assert!(panels.as_u64() >= Some(3), "the learning curve has {panels} panels");
    // Formulas are typeset: a fraction of their width would be that of unknown elements in a row.
    let formula = browser.evaluate("(() => { const m = document.querySelector('math msup'); const b = m?.getBoundingClientRect(); return b ? b.width * b.height : 0; })()");
    assert!(formula.as_f64() > Some(20.0), "the formula is not typeset: {formula}");
    for (width, scheme) in [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")] {
        browser.show(width, scheme, "screen");
        browser.wait_for("[...document.querySelectorAll('.chart')].every((c) => c.querySelector('svg'))");
        let out = browser.evaluate(STICKING_OUT);
        assert_eq!(out, json!({ "scrolls": false, "out": [] }), "{width} pixels");
        if width == 1440 {
            assert_eq!(browser.evaluate(CUT_OFF), json!([]), "{width} pixels");
        }
        let text = browser.evaluate(PALE_TEXT);
        assert!(text["texts"].as_u64() > Some(200), "{text}");
        assert_eq!(text["pale"], json!([]), "{width} pixels, {scheme}");
        browser.photograph(&pictures.join(format!("{scheme}-{width}.png")));
    }
    the_pointer_shows_values(&mut browser);
    browser.show(794, "light", "print");
    browser.photograph(&pictures.join("print.png"));
    let pdf = browser.print();
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 20_000, "{} bytes", pdf.len());
    fs::write(pictures.join("report.pdf"), pdf).expect("a writable document");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn the_pointer_shows_values(browser: &mut Browser) {
    browser.show(1440, "light", "screen");
    for chart in ["power", "curves", "tradeoff", "parity"] {
        let place: Value = browser.evaluate(&format!(
            "(() => {{ const c = document.querySelector('.chart[data-chart={chart}] svg'); c.scrollIntoView({{ block: 'center' }}); \
             const dots = c.querySelectorAll('[aria-label=dot] > *'); const e = dots[Math.floor(dots.length / 2)] ?? c; \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        ));
        browser.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": place[0], "y": place[1] }));
        browser.wait_for(&format!(
            "[...document.querySelectorAll('.chart[data-chart={chart}] [aria-label=tip] text')].some((t) => t.textContent.trim())"
        ));
    }
}

/// Data from outside must not become markup or script, in no place of the page.
#[test]
fn names_from_outside_stay_names() {
    let Some(mut browser) = Browser::start() else { return };
    let desk = Desk::new();
    let evil = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>";
    let header = "model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,data_parallel,batch_size,input_tokens,output_tokens,energy_j,mean_tpot_s,params,n_layers,hidden_size,kv_bytes_per_token,gpu_memory_bytes";
    let mut rows = header.to_owned() + "\n";
    for i in 1..=30_u32 {
        let (t, batch, input) = (1 << (i % 3), 1 << (i % 6), 128 * (1 + i % 5));
        let energy = 0.4 * f64::from(batch * input) * (1.0 + 0.1 * f64::from(t)) + 50.0 * f64::from(t);
        rows += &format!(
            "\"{evil}\",\"{evil}\",{t},{t},1,1,{batch},{input},{},{energy},0.03,7e9,32,4096,524288,8e10\n",
            32 * (1 + i % 4)
        );
    }
    desk.put("rows.csv", rows);
    let ran = desk.type_in("report rows.csv -o report.html --learning-curve 10");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    browser.show(1440, "light", "screen");
    browser.open(&desk.path("report.html"));
    browser.wait_for("[...document.querySelectorAll('.chart')].every((c) => c.querySelector('svg'))");
    assert_eq!(browser.evaluate("document.title"), json!("rows.csv – energylens report"));
    assert_eq!(browser.evaluate("document.querySelectorAll('img').length"), json!(0));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
