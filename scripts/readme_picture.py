#!/usr/bin/env python3
"""Takes one chart out of a report as an SVG file: the picture of the README.

    energylens demo
    python3 scripts/readme_picture.py energylens-demo/report.html docs/images/energy-per-token.svg

Needs Chromium, which draws the chart as it does for a reader, and nothing else.
"""

import html
import re
import subprocess
import sys
import tempfile

CHART, WIDTH, LEGEND_HEIGHT = "curves", 900, 30


def drawn(report):
    """The report's page after its scripts have run."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
                   f"--window-size={WIDTH},1400", "--virtual-time-budget=8000", "--dump-dom"]
        url = "file://" + subprocess.check_output(["realpath", report], text=True).strip()
        return subprocess.run(["chromium", *options, url], check=True, capture_output=True, text=True, timeout=120).stdout


def picture(page):
    """The chart with its legend inside, on white, with numbers of one decimal."""
    start = page.index(f'data-chart="{CHART}"')
    svg_start = page.index("<svg", start)
    legend = re.findall(r'background: (rgb\([^)]*\));"></i>([^<]*)<', page[start:svg_start])
    svg = page[svg_start:page.index("</svg>", svg_start)]
    head, body = svg.split(">", 1)
    width, height = (int(re.search(rf'{name}="(\d+)"', head).group(1)) for name in ("width", "height"))
    body = re.sub(r"<style>.*?</style>", "", body, flags=re.S)
    body = re.sub(r"-?\d+\.\d{2,}", lambda m: f"{float(m.group()):.1f}", body)
    body = re.sub(r"<title>.*?</title>", "", body, flags=re.S)
    step = width / max(len(legend), 1)
    swatches = "".join(
        f'<rect x="{i * step + 20:.0f}" y="10" width="11" height="11" fill="{colour}"/>'
        f'<text x="{i * step + 36:.0f}" y="20" text-anchor="start">{html.escape(name)}</text>'
        for i, (colour, name) in enumerate(legend))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + LEGEND_HEIGHT}" '
            f'viewBox="0 0 {width} {height + LEGEND_HEIGHT}" font-family="system-ui, sans-serif" font-size="12" '
            f'text-anchor="middle" fill="currentColor" color="#222">\n<rect width="100%" height="100%" fill="#fff"/>\n'
            f'{swatches}\n<g transform="translate(0,{LEGEND_HEIGHT})">{body}</g></svg>\n')


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(picture(drawn(sys.argv[1])))
