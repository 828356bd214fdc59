//! The page that `validate --report` writes: figures as a table, parity and learning curves as charts.
//!
//! One HTML file without network, drawn by the same vendored Observable Plot as the report's charts.

use energylens::fit::validate::{LearningCurve, Validation};
use serde_json::json;

const D3: &str = include_str!("../../vendor/observable-plot/d3.min.js");
const PLOT: &str = include_str!("../../vendor/observable-plot/plot.umd.min.js");
const CHARTS: &str = include_str!("validation_page.js");

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\
pre{overflow-x:auto;font-size:13px;line-height:1.4}h2{margin-top:2.5rem}.chart{min-height:10rem}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#dde}}";

/// The page as text.
pub(crate) fn page(title: &str, validation: &Validation, curve: Option<&LearningCurve>) -> String {
    let figures = json!({ "predictions": validation.predictions, "curve": curve });
    // A `<` inside a script element could end it.
    let figures = figures.to_string().replace('<', "\\u003c");
    let title = escaped(title);
    let simulated = if validation.simulated { "<p><strong>Simulated rows.</strong></p>" } else { "" };
    let curve_part = curve.map_or_else(String::new, |curve| {
        format!(
            "<h2>Accuracy against the number of rows learnt from</h2><div class=\"chart\" data-chart=\"curve\"></div>\
             <pre>{}</pre>",
            escaped(&curve.to_string())
        )
    });
    let table = escaped(&validation.to_string());
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">\
         <title>{title}: held-out accuracy</title><style>{STYLE}</style></head><body>\
         <h1>{title}: held-out accuracy</h1>{simulated}<pre>{table}</pre>\
         <h2>Predicted and measured, rows that the law never saw</h2><div class=\"chart\" data-chart=\"parity\"></div>\
         {curve_part}<script type=\"application/json\" id=\"figures\">{figures}</script>\
         <script>{D3}</script><script>{PLOT}</script><script>{CHARTS}</script></body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use energylens::law::Pool;

    fn validation(scheme: &str) -> Validation {
        Validation {
            scheme: scheme.to_owned(),
            target: energylens::law::Target::EnergyJ,
            unit: "J",
            seed: 0,
            pool: Pool::None,
            simulated: true,
            splits: 1,
            training_rows_min: 4,
            training_rows_max: 4,
            training_rows_per_law_min: 4,
            training_rows_per_law_max: 4,
            scopes: 1,
            rows: 0,
            refused: 0,
            rejected: Vec::new(),
            groups: 0,
            noise: 0.03,
            noise_source: energylens::fit::validate::NoiseSource::Given,
            optima_differ: None,
            scores: Vec::new(),
            predictions: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn names_from_outside_cannot_become_markup() {
        let page = page("</title><script>alert(1)</script>", &validation("<b>"), None);
        assert!(!page.contains("<script>alert(1)") && !page.contains("<b>"), "escaped");
        assert!(page.contains("Simulated rows"));
    }
}
