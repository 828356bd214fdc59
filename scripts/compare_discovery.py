#!/usr/bin/env python3
"""Other symbolic regression tools on the rows of `cargo bench --bench discover -- DIRECTORY`.

    cargo bench --bench discover -- /tmp/rows
    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pyoperon==0.6.2 gplearn==0.4.3
    /tmp/venv/bin/python scripts/compare_discovery.py /tmp/rows

Each tool learns from the same 50 rows and answers the same held-out rows; figures of discovery and of the
`symbolic_regression` crate are those that the benchmark wrote. Features are scaled by their geometric means. Energy
spans four decades: each tool is shown logarithms as well as plain values, and weights 1/y^2 where it takes weights.
Prints one line per law and seed, and medians as JSON on the last line.
"""

import json
import math
import sys
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np

warnings.filterwarnings("ignore")

SECONDS = 20  # what pyoperon is given; gplearn knows only generations
GPLEARN = dict(population_size=1000, generations=40, function_set=("add", "sub", "mul", "div", "sqrt"))


def table(path):
    data = np.genfromtxt(path, delimiter=",", skip_header=1)
    return data[:, :-1], data[:, -1]


def pyoperon(x, y, weights, seed):
    from pyoperon.sklearn import SymbolicRegressor

    tool = SymbolicRegressor(
        allowed_symbols="add,sub,mul,div,sqrt,constant,variable", max_length=50, optimizer_iterations=5,
        generations=100_000, max_evaluations=100_000_000, max_time=SECONDS, n_threads=2, random_state=seed,
    )
    tool.fit(x, y)
    return tool.predict


def gplearn(x, y, weights, seed):
    from gplearn.genetic import SymbolicRegressor

    tool = SymbolicRegressor(metric="mse", parsimony_coefficient=1e-4, random_state=seed, **GPLEARN)
    tool.fit(x, y, sample_weight=weights)
    return tool.predict


VARIANTS = [
    ("pyoperon, logarithms", pyoperon, True, False),
    ("pyoperon, plain", pyoperon, False, False),
    ("gplearn, logarithms", gplearn, True, False),
    ("gplearn, relative", gplearn, False, True),
]


def judge(tool, logarithms, weighted, train, test, seed):
    (x, y), (held_x, held_y) = train, test
    middle_x, middle_y = np.exp(np.log(x).mean(axis=0)), math.exp(np.log(y).mean())
    forward = (lambda a: np.log(a)) if logarithms else (lambda a: a)
    begin = time.perf_counter()
    predict = tool(forward(x / middle_x), forward(y / middle_y), (middle_y / y) ** 2 if weighted else None, seed)
    seconds = time.perf_counter() - begin
    answer = np.asarray(predict(forward(held_x / middle_x)), dtype=float).ravel()
    answer = (np.exp(np.clip(answer, -50, 50)) if logarithms else answer) * middle_y
    error = np.abs(answer / held_y - 1)
    # A row without a finite answer counts as 100 %, as in the benchmark.
    return float(np.where(np.isfinite(error), error, 1.0).mean()), seconds


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    runs = json.loads((directory / "figures.json").read_text())
    names = ["true structure", "discover", "symbolic_regression"] + [name for name, *_ in VARIANTS]
    errors, seconds = {n: [] for n in names}, {n: [] for n in names}
    print("held-out MAPE, %".ljust(22), "  ".join(n.rjust(20) for n in names))
    for run in runs:
        stem = f"{run['law']}-{run['seed']}"
        train, test = table(directory / f"{stem}-train.csv"), table(directory / f"{stem}-test.csv")
        row = {"true structure": (run["true_mape"], 0.0), "discover": (run["discover_mape"], run["discover_s"]),
               "symbolic_regression": (run["free_form_mape"], run["free_form_s"])}
        for name, tool, logarithms, weighted in VARIANTS:
            row[name] = judge(tool, logarithms, weighted, train, test, run["seed"])
        for name in names:
            errors[name].append(row[name][0])
            seconds[name].append(row[name][1])
        print(stem.ljust(22), "  ".join(f"{100 * row[n][0]:13.2f} {row[n][1]:5.0f}s" for n in names), flush=True)
    print(json.dumps({n: {"median_mape": median(errors[n]), "worst_mape": max(errors[n]),
                          "median_s": median(seconds[n])} for n in names}))


if __name__ == "__main__":
    main()
