// Draws the charts of a validation from the JSON element #figures.
"use strict";
(() => {
  const { predictions, curve } = JSON.parse(document.getElementById("figures").textContent);
  const style = { background: "none", color: "currentColor", fontSize: "12px" };
  const charts = {
    parity(width) {
      const values = predictions.flatMap((d) => [d.measured, d.predicted]).filter((v) => v > 0);
      const [low, high] = d3.extent(values);
      const domain = [low / 1.3, high * 1.3];
      return Plot.plot({
        width, height: Math.min(width, 460), style, marginLeft: 64, grid: true,
        x: { type: "log", domain, label: "predicted, J" },
        y: { type: "log", domain, label: "measured, J" },
        color: { legend: true },
        marks: [
          Plot.line([domain[0], domain[1]], { x: Plot.identity, y: Plot.identity, strokeDasharray: "4 3" }),
          Plot.link(predictions, { x1: "low", x2: "high", y1: "measured", y2: "measured", strokeOpacity: 0.15 }),
          Plot.dot(predictions, { x: "predicted", y: "measured", stroke: "model", symbol: "phase", r: 3, tip: true }),
        ],
      });
    },
    curve(width) {
      const rows = curve.points.flatMap((p) =>
        Object.entries(p.figures).map(([predictor, f]) => ({ ...f, predictor, learnt: p.training_rows })));
      const parts = [["regret", "regret, %"], ["top1", "Top-1, %"], ["mape", "MAPE, %"]];
      const box = document.createElement("div");
      for (const [key, label] of parts) {
        const known = rows.filter((d) => Number.isFinite(d[key]));
        if (known.length === 0) continue;
        box.append(Plot.plot({
          width, height: 260, style, marginLeft: 52, grid: true,
          color: { legend: true, domain: curve.predictors },
          x: { type: "log", label: "rows learnt from", ticks: curve.points.map((p) => p.training_rows), tickFormat: "d" },
          y: { label, transform: (v) => 100 * v, zero: true },
          marks: [
            Plot.lineY(known, { x: "learnt", y: key, stroke: "predictor", strokeWidth: (d) => (d.predictor === "energylens" ? 3 : 1.2) }),
            Plot.dot(known, { x: "learnt", y: key, stroke: "predictor", r: 2.5, tip: true }),
          ],
        }));
      }
      return box;
    },
  };
  for (const place of document.querySelectorAll(".chart")) place.append(charts[place.dataset.chart](Math.min(900, place.clientWidth)));
})();
