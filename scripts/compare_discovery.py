#!/usr/bin/env python3
"""`energylens discover` beside other symbolic regression tools, on the same rows in one run.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pyoperon==0.6.2 gplearn==0.4.3
    /tmp/venv/bin/python scripts/compare_discovery.py target/release/energylens [RUNS_PER_LAW [SECONDS [FIRST_SEED]]]

Each tool learns from the same 50 rows with 2 % noise of a hidden law of twelve parameters and answers the same 300
held-out rows without noise. The hidden laws are written out here once more, not taken from the program. "True structure"
is the hidden law's own skeleton fitted to the same rows: the floor. The `symbolic_regression` crate is run by
`discover --free-form`, which judges it on held-out workloads of the 50 rows. Features are scaled by their geometric
means. Energy spans four decades, so each other tool is tried on logarithms and on plain values (gplearn, which takes
weights, with weights 1/y^2). Prints one line per law and run, and medians as JSON on the last line.
"""

import json
import math
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np

warnings.filterwarnings("ignore")

N, W, L, H, K = 70e9, 140e9, 80.0, 8192.0, 327_680.0
COLUMNS = ["model", "gpu_model", "num_gpus", "tensor_parallel", "pipeline_parallel", "batch_size", "input_tokens",
           "output_tokens", "kv_capacity_tokens", "params", "n_layers", "hidden_size", "kv_bytes_per_token",
           "bytes_per_weight", "energy_j"]

# Name, replacements in the file of the built-in skeleton, and the law itself: static, prefill, attention, weights,
# arithmetic, cache, all-reduce, launch.
LAWS = {
    "energylens": ([], lambda t, p, b, s, m, w, u, i, f: (
        0.037 * L**0.7 * t * p * m * w
        + (3e-12 * N * b * s + 4e-13 * L * H * b * s * s) * t**0.25 * f**0.15
        + m * (2.5e-10 * W * w * u + 3e-12 * N * b + 3e-10 * K * b * (s + m / 2)) * t**-0.2 * i**0.4
        + 2e-10 * L * H * b * (s + m) * (t - 1) + 0.03 * L * m * w)),
    "kv-by-input": ([('"L^0.7*t*p*m*w"', '"t*p*m"'), ('"K*B*ctx*m"', '"K*B*S*m"')],
                    lambda t, p, b, s, m, w, u, i, f: (
        0.8 * t * p * m
        + (3e-12 * N * b * s + 4e-13 * L * H * b * s * s) * t**0.25 * f**0.15
        + m * (2.5e-10 * W * w * u + 3e-12 * N * b + 4e-10 * K * b * s) * t**-0.2 * i**0.4
        + 2e-10 * L * H * b * (s + m) * (t - 1) + 0.03 * L * m * w)),
    "other-powers": ([('b = "a2"', 'p = "a2"'), ('i = "a4"', 'u = "a4"')],
                     lambda t, p, b, s, m, w, u, i, f: (
        0.037 * L**0.7 * t * p * m * w
        + (3e-12 * N * b * s + 4e-13 * L * H * b * s * s) * t**-0.1 * p**0.35
        + m * (2.5e-10 * W * w * u + 3e-12 * N * b + 3e-10 * K * b * (s + m / 2)) * t**0.3 * u**-0.25
        + 2e-10 * L * H * b * (s + m) * (t - 1) + 0.03 * L * m * w)),
}


def rows(law, count, noise, seed):
    """Configurations (t, p, B, S, m, w) and energies."""
    draw = random.Random(seed)
    x, y = [], []
    for _ in range(count):
        t, p, b = draw.choice([1, 2, 4, 8]), draw.choice([1, 2, 4]), draw.choice([1, 2, 4, 8, 16, 32, 64])
        s, m = round(64 * 2 ** draw.uniform(0, 7)), round(2 ** draw.uniform(0, 9))
        w = max(1.0, min(b * (s + m) / (100_000 * t * p), b))
        u = min(max(b / w, 1.0), p)
        x.append([t, p, b, s, m, w])
        y.append(law(t, p, b, s, m, w, u, p / u, (u + p - 1) / u) * math.exp(noise * draw.gauss(0, 1)))
    return np.array(x, dtype=float), np.array(y)


def write(path, x, y):
    lines = [",".join(COLUMNS)]
    for (t, p, b, s, m, _), energy in zip(x, y):
        fields = ["lab/hidden-70b", "A100-SXM4-80GB", t * p, t, p, b, s, m, 100_000 * t * p, N, L, H, K, 2, energy]
        lines.append(",".join(f if isinstance(f, str) else f"{f:.15g}" for f in fields))
    path.write_text("\n".join(lines) + "\n")


def energylens(binary, *arguments):
    begin = time.perf_counter()
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"energylens {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout, time.perf_counter() - begin


def error(model, case, y):
    """Held-out error of a model file, by its own formula: coefficient, product, fitted powers."""
    law = next(l for l in json.loads(model.read_text())["laws"] if l["skeleton"]["target"] == "energy_j")
    exponents = {e["name"]: e["value"] for e in law["exponents"]}
    predicted = np.zeros(len(y))
    for term, k in zip(law["skeleton"]["term"], law["coefficients"]):
        part = np.full(len(y), k["value"])
        for factor in term["product"].split("*"):
            symbol, _, power = factor.partition("^")
            part = part * case[symbol] ** float(power or 1)
        for symbol, name in term.get("scaling", {}).items():
            part = part * case[symbol] ** exponents[name]
        predicted += part
    return float(np.abs(predicted / y - 1).mean())


def symbols(x):
    t, p, b, s, m, w = x.T
    u = np.minimum(np.maximum(b / w, 1.0), p)
    one = np.ones(len(x))
    return {"t": t, "t1": t - 1, "p": p, "p1": p - 1, "B": b, "S": s, "m": m, "r": m, "ctx": s + m / 2, "seq": s + m, "w": w,
            "u": u, "i": p / u, "b": (u + p - 1) / u, "c": one, "N": N * one, "W": W * one, "L": L * one, "h": H * one,
            "K": K * one}


def pyoperon(x, y, weights, seed, seconds):
    from pyoperon.sklearn import SymbolicRegressor

    tool = SymbolicRegressor(
        allowed_symbols="add,sub,mul,div,sqrt,constant,variable", max_length=50, optimizer_iterations=5,
        generations=100_000, max_evaluations=100_000_000, max_time=seconds, n_threads=2, random_state=seed,
    )
    tool.fit(x, y)
    return tool.predict


def gplearn(x, y, weights, seed, seconds):
    from gplearn.genetic import SymbolicRegressor

    # It knows generations only: forty take some 20 s on a quiet machine.
    tool = SymbolicRegressor(
        population_size=1000, generations=2 * seconds, function_set=("add", "sub", "mul", "div", "sqrt"), metric="mse",
        parsimony_coefficient=1e-4, random_state=seed,
    )
    tool.fit(x, y, sample_weight=weights)
    return tool.predict


OTHERS = [
    ("pyoperon, logarithms", pyoperon, True, False),
    ("pyoperon, plain", pyoperon, False, False),
    ("gplearn, logarithms", gplearn, True, False),
    ("gplearn, relative", gplearn, False, True),
]


def judge(tool, logarithms, weighted, train, test, seed, seconds):
    (x, y), (held_x, held_y) = train, test
    middle_x, middle_y = np.exp(np.log(x).mean(axis=0)), math.exp(np.log(y).mean())
    forward = (lambda a: np.log(a)) if logarithms else (lambda a: a)
    begin = time.perf_counter()
    weights = (middle_y / y) ** 2 if weighted else None
    predict = tool(forward(x / middle_x), forward(y / middle_y), weights, seed, seconds)
    took = time.perf_counter() - begin
    answer = np.asarray(predict(forward(held_x / middle_x)), dtype=float).ravel()
    answer = (np.exp(np.clip(answer, -50, 50)) if logarithms else answer) * middle_y
    off = np.abs(answer / held_y - 1)
    # A row without a finite answer counts as 100 %, as in `discover --free-form`.
    return float(np.where(np.isfinite(off), off, 1.0).mean()), took


def main():
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    binary = sys.argv[1]
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    names = ["true structure", "discover", "symbolic_regression"] + [name for name, *_ in OTHERS]
    errors, times = {n: [] for n in names}, {n: [] for n in names}
    print("held-out MAPE, seconds".ljust(22), "  ".join(n.rjust(20) for n in names))
    template, _ = energylens(binary, "laws", "energylens")
    for name, (changes, law) in LAWS.items():
        for seed in range(first, first + runs):
            with tempfile.TemporaryDirectory() as directory:
                directory = Path(directory)
                train, test = rows(law, 50, 0.02, seed), rows(law, 300, 0.0, 1000 + seed)
                write(directory / "train.csv", *train)
                skeleton = template
                for old, new in changes:
                    assert old in skeleton, f"{old} is not in the built-in skeleton"
                    skeleton = skeleton.replace(old, new)
                    # A prior is of the term that stood there: it would only hold the true structure down.
                    before, product, after = skeleton.partition(f"product = {new}")
                    term, bracket, others = after.partition("[[")
                    skeleton = before + product + re.sub(r"\[term\.prior\]\n(.+\n)*", "", term) + bracket + others
                (directory / "true.toml").write_text(skeleton)
                arguments = [directory / "train.csv", "--seed", seed]
                _, fit_s = energylens(binary, "fit", *arguments, "--skeleton", directory / "true.toml", "-o",
                                      directory / "true.json", "--no-held-out")
                _, discover_s = energylens(binary, "discover", *arguments, "-o", directory / "found.json")
                # Six searches: one on all rows, one for each of five folds.
                text, free_s = energylens(binary, "discover", *arguments, "--generations", 1, "--free-form", "--json")
                case = symbols(test[0])
                row = {
                    "true structure": (error(directory / "true.json", case, test[1]), fit_s),
                    "discover": (error(directory / "found.json", case, test[1]), discover_s),
                    "symbolic_regression": (json.loads(text)["free_form"]["held_out_mape"], free_s / 6),
                }
            for other, tool, logarithms, weighted in OTHERS:
                row[other] = judge(tool, logarithms, weighted, train, test, seed, seconds)
            for n in names:
                errors[n].append(row[n][0])
                times[n].append(row[n][1])
            cells = "  ".join(f"{100 * row[n][0]:13.2f} {row[n][1]:5.0f}s" for n in names)
            print(f"{name}-{seed}".ljust(22), cells, flush=True)
    print(json.dumps({n: {"median_mape": median(errors[n]), "worst_mape": max(errors[n]),
                          "median_s": median(times[n])} for n in names}))


if __name__ == "__main__":
    main()
