// Draws every .chart of the report from the JSON element #figures, and again when its width or the colours change.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const narrow = (width) => width < 480;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // Okabe and Ito's colours, which the colour-blind tell apart, and the same hues lighter for a dark page.
  const light = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];
  const lighter = ["#4aa8e8", "#ff8a3d", "#2fc592", "#e39bc0", "#f2b632", "#9fdcff", "#b79be0", "#a8a8a8"];
  const palette = (i) => (dark.matches ? lighter : light)[i % light.length];
  const groups = { static: 7, prefill: 4, decode: 0, communication: 3, overhead: 2 };
  const bands = { idle: 7, warmup: 5, prefill: 4, decode: 0, total: 2 };
  const band = (phase) => palette(bands[phase] ?? 7);
  const number = (v) => {
    const size = Math.abs(v);
    if (size >= 1e4) return d3.format(".4~s")(v);
    return d3.format(v !== 0 && size < 1e-3 ? ".3~e" : ".4~r")(v);
  };
  const unique = (values) => [...new Set(values)];
  const positive = (values) => d3.extent(values.filter((v) => v > 0));

  // Plain elements, not HTML text: names come from outside.
  const swatches = (entries) => {
    const list = document.createElement("div");
    list.className = "swatches";
    for (const [name, colour] of entries) {
      const item = document.createElement("span");
      const box = document.createElement("i");
      box.style.background = colour;
      item.append(box, name);
      list.append(item);
    }
    return list;
  };
  const plot = (width, options) =>
    Plot.plot({
      width,
      marginLeft: narrow(width) ? 48 : 60,
      marginRight: 16,
      marginTop: 28,
      marginBottom: 44,
      style: { background: "none", color: "currentColor", fontSize: "12px", overflow: "visible" },
      ...options,
    });
  // A logarithmic axis whose labels never touch: the roundest figures first, then whatever fits `gap` pixels apart.
  const logTicks = (domain, pixels, gap) => {
    const place = d3.scaleLog(domain, [0, pixels]);
    const decades = d3.range(Math.floor(Math.log10(domain[0])), Math.ceil(Math.log10(domain[1])) + 1);
    const round = [[1], [2, 5], [3], [1.5, 4, 7]].map((steps) => decades.flatMap((e) => steps.map((s) => s * 10 ** e)));
    const ticks = [];
    for (const tick of [...round.flat(), ...d3.ticks(domain[0], domain[1], 8)]) {
      const inside = tick >= domain[0] && tick <= domain[1];
      if (inside && ticks.every((t) => Math.abs(place(t) - place(tick)) >= gap)) ticks.push(tick);
    }
    return { ticks, scale: { type: "log", domain, axis: null } };
  };
  // Axes as marks: a logarithmic scale would leave out labels of ticks that it was given.
  const logX = (label, values, width, factor) => {
    const { ticks, scale } = logTicks(padded(positive(values), factor), width - 76, 44);
    return { scale, marks: [Plot.axisX(ticks, { text: number, label: `${label} →`, labelArrow: "none" })] };
  };
  const logY = (label, values, height, factor) => {
    const { ticks, scale } = logTicks(padded(positive(values), factor), height - 72, 22);
    return { scale, marks: [Plot.gridY(ticks), Plot.axisY(ticks, { text: number, label: `↑ ${label}`, labelArrow: "none" })] };
  };
  const padded = ([low, high], factor = 1.15) => [low / factor, high * factor];
  const byConfig = (names) => {
    const order = (name) => name.match(/\d+/g).map(Number);
    return [...names].sort((a, b) => {
      const [ta, pa] = order(a), [tb, pb] = order(b);
      return ta * pa - tb * pb || ta - tb;
    });
  };

  const charts = {
    power(width) {
      const { traces, bands: phases } = figures.power;
      const points = traces.flatMap((t) => t.points.map(([t_s, power_w]) => ({ device: t.device, t_s, power_w })));
      const devices = traces.map((t) => t.device);
      const colour = (device) => palette(devices.indexOf(device));
      const present = unique(phases.map((b) => b.phase));
      const svg = plot(width, {
        height: narrow(width) ? 240 : 320,
        x: { label: "time, s" },
        y: { label: "power, W", zero: true, grid: true, nice: true },
        marks: [
          Plot.rect(phases, { x1: "start_s", x2: "end_s", fill: (d) => band(d.phase), fillOpacity: 0.16 }),
          Plot.line(points, { x: "t_s", y: "power_w", z: "device", stroke: (d) => colour(d.device), strokeWidth: 1 }),
          Plot.tip(points, Plot.pointerX({ x: "t_s", y: "power_w", title: (d) => `${d.device}\n${number(d.t_s)} s\n${number(d.power_w)} W` })),
        ],
      });
      return [
        swatches([...devices.slice(0, 8).map((d) => [d, colour(d)]), ...present.map((p) => [p, band(p) + "55"])]),
        svg,
      ];
    },

    curves(width, index) {
      const { curves, points } = figures.views[index];
      const configs = byConfig(unique(curves.map((d) => d.config)));
      const colour = (config) => palette(configs.indexOf(config));
      const dashed = (config) => (configs.indexOf(config) >= light.length ? "4 3" : null);
      const height = narrow(width) ? 300 : 400;
      const energies = [...curves.flatMap((d) => [d.low, d.high]), ...points.map((d) => d.value)];
      const x = logX("sequences per replica", curves.map((d) => d.batch), width, 1.05);
      const y = logY("J per output token", energies, height, 1.05);
      const svg = plot(width, {
        height,
        x: x.scale,
        y: y.scale,
        marks: [
          ...x.marks,
          ...y.marks,
          Plot.areaY(curves, { x: "batch", y1: "low", y2: "high", z: "config", fill: (d) => colour(d.config), fillOpacity: 0.12 }),
          ...configs.map((config) =>
            Plot.line(curves.filter((d) => d.config === config), { x: "batch", y: "value", stroke: colour(config), strokeWidth: 1.8, strokeDasharray: dashed(config) })),
          Plot.dot(points, { x: "batch", y: "value", fill: (d) => colour(d.config), r: 3, stroke: "var(--page)", strokeWidth: 0.7 }),
          Plot.tip(points, Plot.pointer({ x: "batch", y: "value", title: (d) => `${d.config}, ${number(d.batch)} sequences\n${number(d.value)} J per token\n${d.run_id}` })),
        ],
      });
      return [swatches(configs.map((c) => [c, colour(c)])), svg];
    },

    terms(width, index) {
      const { terms } = figures.views[index];
      const configs = byConfig(unique(terms.map((d) => d.config)));
      const names = unique(terms.map((d) => d.term));
      const group = new Map(terms.map((d) => [d.term, d.group]));
      // Terms of one group share a hue and differ in lightness.
      const colour = (term) => {
        const mates = names.filter((n) => group.get(n) === group.get(term));
        const base = d3.hsl(palette(groups[group.get(term)] ?? 7));
        base.l = Math.min(0.85, base.l + 0.17 * mates.indexOf(term));
        return base.formatHex();
      };
      const shown = names.filter((n) => terms.some((d) => d.term === n && d.energy_per_token_j > 0));
      const svg = plot(width, {
        height: 50 + 30 * configs.length,
        marginLeft: 74,
        marginTop: 6,
        x: { label: "J per output token", grid: true, ticks: Math.max(3, Math.floor(width / 90)) },
        y: { domain: configs, label: null },
        marks: [
          Plot.barX(terms, Plot.stackX({
            x: "energy_per_token_j", y: "config", order: names, fill: (d) => colour(d.term), inset: 0.5,
            title: (d) => `${d.config}\n${d.term}\n${number(d.energy_per_token_j)} J per token`, tip: true,
          })),
        ],
      });
      return [swatches(shown.map((n) => [n, colour(n)])), svg];
    },

    tradeoff(width) {
      const { latency, points } = figures.tradeoff;
      const style = { recommended: ["recommended", palette(1)], front: ["on the front", palette(0)], other: ["ranked, off the front", palette(7)], measured: ["measured", palette(0)] };
      const front = points.filter((d) => d.kind === "front").sort((a, b) => a.latency_s - b.latency_s);
      const height = narrow(width) ? 300 : 380;
      const best = points.find((d) => d.kind === "recommended");
      const dots = points.filter((d) => d === best || d.label !== best?.label);
      const x = logX(latency, points.map((d) => d.latency_s), width);
      const y = logY("J per output token", points.map((d) => d.energy_per_token_j), height);
      const svg = plot(width, {
        height,
        x: x.scale,
        y: y.scale,
        marks: [
          ...x.marks,
          ...y.marks,
          Plot.line(front, { x: "latency_s", y: "energy_per_token_j", stroke: palette(0), strokeOpacity: 0.6, curve: "step-after" }),
          Plot.dot(dots, { x: "latency_s", y: "energy_per_token_j", fill: (d) => style[d.kind][1], r: (d) => (d === best ? 7 : 3.5), symbol: (d) => (d === best ? "star" : "circle"), sort: null }),
          Plot.tip(dots, Plot.pointer({ x: "latency_s", y: "energy_per_token_j", title: (d) => `${d.label}\n${number(d.energy_per_token_j)} J per token\n${number(d.latency_s)} s` })),
        ],
      });
      return [swatches(unique(points.map((d) => d.kind)).map((k) => style[k])), svg];
    },

    learning(width) {
      const parts = [["regret", "energy regret, %"], ["top1", "best configuration picked, %"], ["mape", "error (MAPE), %"]];
      const points = figures.learning.filter((d) => parts.some(([key]) => Number.isFinite(d[key])));
      const names = unique(points.map((d) => d.predictor));
      const own = (name) => name === "energylens";
      const colour = (name) => palette(names.indexOf(name));
      const columns = Math.max(1, Math.min(3, Math.floor(width / 290)));
      const each = Math.floor((width - 16 * (columns - 1)) / columns);
      const sizes = unique(points.map((d) => d.training_rows));
      const panels = document.createElement("div");
      panels.className = "panels";
      for (const [key, label] of parts) {
        const known = points.filter((d) => Number.isFinite(d[key])).map((d) => ({ ...d, percent: 100 * d[key] }));
        if (known.length === 0) continue;
        panels.append(plot(each, {
          height: 240,
          x: { type: "log", label: "rows learnt from →", labelArrow: "none", ticks: sizes, tickFormat: "d", domain: padded(d3.extent(sizes), 1.1) },
          y: { label: `↑ ${label}`, labelArrow: "none", grid: true, zero: true, nice: true, ticks: 5 },
          marks: [
            ...names.map((name) =>
              Plot.line(known.filter((d) => d.predictor === name), { x: "training_rows", y: "percent", stroke: colour(name), strokeWidth: own(name) ? 3 : 1.4 })),
            Plot.dot(known, { x: "training_rows", y: "percent", fill: (d) => colour(d.predictor), r: 2.5 }),
            Plot.tip(known, Plot.pointer({ x: "training_rows", y: "percent", title: (d) => `${d.predictor}\n${d.training_rows_min < d.training_rows ? `${d.training_rows_min} to ` : ""}${d.training_rows} rows: ${number(d.percent)} %` })),
          ],
        }));
      }
      return [swatches(names.map((n) => [n, colour(n)])), panels];
    },

    parity(width) {
      const points = figures.parity;
      const kinds = unique(points.map((d) => d.phase));
      const colour = (kind) => palette(kinds.indexOf(kind));
      const domain = padded(positive(points.flatMap((d) => [d.measured_j, d.predicted_j])), 1.3);
      const height = Math.min(width, 420);
      const x = logX("predicted, J", domain, width, 1);
      const y = logY("measured, J", domain, height, 1);
      const svg = plot(width, {
        height,
        x: x.scale,
        y: y.scale,
        marks: [
          ...x.marks,
          ...y.marks,
          Plot.line([domain[0], domain[1]], { x: Plot.identity, y: Plot.identity, stroke: "currentColor", strokeOpacity: 0.5, strokeDasharray: "4 3" }),
          Plot.dot(points, { x: "predicted_j", y: "measured_j", stroke: (d) => colour(d.phase), r: 3 }),
          Plot.tip(points, Plot.pointer({ x: "predicted_j", y: "measured_j", title: (d) => `${d.label}\n${d.phase}: measured ${number(d.measured_j)} J, predicted ${number(d.predicted_j)} J` })),
        ],
      });
      return [swatches(kinds.map((k) => [k, colour(k)])), svg];
    },

    residuals(width) {
      const points = figures.parity.map((d) => ({ ...d, off: 100 * (d.measured_j / d.predicted_j - 1) }));
      const kinds = unique(points.map((d) => d.phase));
      const colour = (kind) => palette(kinds.indexOf(kind));
      const x = logX("predicted, J", points.map((d) => d.predicted_j), width, 1.3);
      const svg = plot(width, {
        height: Math.min(width, 420),
        x: x.scale,
        y: { label: "measured over predicted, %", grid: true, nice: true, tickFormat: "+d" },
        marks: [
          ...x.marks,
          Plot.ruleY([0], { strokeOpacity: 0.5 }),
          Plot.dot(points, { x: "predicted_j", y: "off", stroke: (d) => colour(d.phase), r: 3 }),
          Plot.tip(points, Plot.pointer({ x: "predicted_j", y: "off", title: (d) => `${d.label}\n${d.phase}: ${d3.format("+.1f")(d.off)} %` })),
        ],
      });
      return [swatches(kinds.map((k) => [k, colour(k)])), svg];
    },
  };

  const draw = (element) => {
    const width = Math.floor(element.clientWidth);
    const drawn = `${width} ${dark.matches}`;
    if (width < 40 || element.dataset.drawn === drawn) return;
    element.dataset.drawn = drawn;
    element.replaceChildren(...charts[element.dataset.chart](width, Number(element.dataset.index)));
  };
  const elements = [...document.querySelectorAll(".chart")];
  const watcher = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target)));
  for (const element of elements) {
    draw(element);
    watcher.observe(element);
  }
  dark.addEventListener("change", () => elements.forEach(draw));
})();
