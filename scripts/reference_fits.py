#!/usr/bin/env python3
"""Writes tests/data/reference_fits.json: rows, starts and the optima that SciPy finds for the law's own problem.

    python3 -m venv v && v/bin/pip install numpy scipy && v/bin/python scripts/reference_fits.py

The rows follow the energylens law for Llama-2-70B on A100s with seeded noise. All twelve parameters are free in one
bounded least-squares problem (trust-region reflective), without variable projection, so that nothing but the answer is
shared with the program's own search. The test that reads the file is src/fit/search/tests.rs.
"""

import json
import math
import pathlib

import numpy as np
from scipy.optimize import least_squares

L, N, W, H, K = 80.0, 69e9, 138e9, 8192.0, 327680.0
TRUTH = np.array([0.037, 3e-12, 4e-13, 2.5e-10, 3e-12, 3e-10, 2e-10, 0.03, 0.25, 0.15, -0.2, 0.4])
LOW = np.array([0.0] * 8 + [-1.0] * 4)
HIGH = np.array([np.inf] * 8 + [1.5] * 4)
EXPONENT_PRIOR, EXPONENT_SD = np.array([0.1, 0.3, 0.1, 0.3]), np.array([0.2, 0.4, 0.2, 0.4])
# What an A100 pays at its power limit: 400 W over 312 TFLOP/s, 2039 GB/s, 300 GB/s, and per second.
FLOP, BYTE, LINK, SECOND = 400 / 312e12, 400 / 2.039e12, 400 / 300e9, 400.0
CARD = np.array([1.5e-4 * SECOND, 3.3 * FLOP, 3.3 * FLOP, 0.75 * BYTE, 3.3 * FLOP, 0.75 * BYTE, 8 * LINK, 5e-5 * SECOND])


def terms(rows):
    """The eight products and the logs that the four exponents stand on: b, i and t."""
    t, p, B, S, m = rows[:, :5].T
    capacity = 100_000.0 * t * p
    w = np.maximum(1.0, np.minimum(B * (S + m) / capacity, B))
    u = np.clip(B / w, 1.0, p)
    i, b = p / u, (u + p - 1) / u
    products = np.stack([
        L**0.7 * t * p * m * w, N * B * S, L * H * B * S**2, W * w * u * m,
        N * B * m, K * B * (S + m / 2) * m, L * H * B * (S + m) * (t - 1), L * m * w,
    ], axis=1)
    return products, np.log(t), np.log(b), np.log(i)


def predict(x, rows):
    products, t, b, i = terms(rows)
    a1, a2, a3, a4 = x[8:]
    prefill, decode = np.exp(a1 * t + a2 * b), np.exp(a3 * t + a4 * i)
    ones = np.ones_like(t)
    scale = np.stack([ones, prefill, prefill, decode, decode, decode, ones, ones], axis=1)
    return (products * scale) @ x[:8]


def draw(count, noise, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        t, p = rng.choice([1, 2, 4, 8]), rng.choice([1, 2, 4])
        B = rng.choice([1, 2, 4, 8, 16, 32, 64])
        S = round(64 * 2 ** rng.uniform(0, 7))
        m = max(2, round(2 ** rng.uniform(1, 9)))
        rows.append([float(v) for v in (t, p, B, S, m)])
    rows = np.array(rows)
    energy = predict(TRUTH, rows) * np.exp(noise * rng.standard_normal(count))
    return rows, energy, rng


def polished(z, residuals, knee):
    """Gauss-Newton steps on what is not at a bound, with exact derivatives (complex steps), until nothing moves: the
    trust-region method stops when the cost does, half of the digits earlier."""
    free = np.flatnonzero(z > 1e-9)
    z = np.where(z > 1e-9, z, np.where(np.arange(len(z)) < 8, 0.0, z))
    free = np.union1d(free, np.arange(8, 12))
    for _ in range(200):
        r = residuals(z).real
        weight = np.ones_like(r)
        if knee is not None:
            weight = np.sqrt(np.minimum(1.0, knee / np.maximum(np.abs(r), 1e-300)))
        jacobian = np.empty((len(r), len(free)))
        for column, j in enumerate(free):
            moved = z.astype(complex)
            moved[j] += 1e-30j
            jacobian[:, column] = residuals(moved).imag / 1e-30
        step = np.linalg.lstsq(weight[:, None] * jacobian, -weight * r, rcond=None)[0]
        z[free] += step
        if np.abs(step).max() < 1e-14:
            break
    return z


def solve(name, rows, energy, knee, sigma, card, rng):
    ln_y = np.log(energy)
    unit = np.concatenate([TRUTH[:8], np.ones(4)])

    def residuals(z):
        x = z * unit
        misfit = np.log(predict(x, rows) + 1e-300) - ln_y
        beliefs = [sigma * (x[8:] - EXPONENT_PRIOR) / EXPONENT_SD]
        if card:
            beliefs.append(sigma * (x[:8] / CARD - 1))
        return np.concatenate([misfit, *beliefs])

    starts = [np.concatenate([np.ones(8), EXPONENT_PRIOR])]
    starts += [np.concatenate([np.exp(rng.normal(0, 1, 8)), rng.uniform(-0.5, 1.0, 4)]) for _ in range(8)]
    best = None
    for start in starts:
        loss = dict(loss="linear") if knee is None else dict(loss="huber", f_scale=knee)
        found = least_squares(residuals, start, bounds=(LOW, HIGH), x_scale="jac", jac="3-point", max_nfev=20000,
                              ftol=1e-15, xtol=1e-15, gtol=1e-15, **loss)
        if best is None or found.cost < best.cost:
            best = found
    x = polished(best.x, residuals, knee) * unit

    def objective(z):
        r = np.abs(residuals(z))
        return float(np.sum(r**2 if knee is None else np.where(r <= knee, r**2, knee * (2 * r - knee))))

    print(name, "scipy", 2 * best.cost, "polished", objective(x / unit), "moved", np.abs(x / unit - best.x).max())
    return {
        "name": name, "knee": knee, "sigma": sigma, "card": card,
        "rows": [[*row, y] for row, y in zip(rows.tolist(), energy.tolist())],
        "starts": (np.array(starts) * unit).tolist(),
        "objective": objective(x / unit), "parameters": x.tolist(),
    }


def main():
    problems = []
    rows, energy, rng = draw(120, 0.01, 1)
    problems.append(solve("many rows, plain squares", rows, energy, None, 0.03, False, rng))
    rows, energy, rng = draw(90, 0.02, 2)
    energy[[5, 40, 77]] *= [3.0, 0.4, 2.0]
    problems.append(solve("three wild rows, Huber", rows, energy, 0.08, 0.03, False, rng))
    rows, energy, rng = draw(40, 0.03, 3)
    problems.append(solve("few rows, priors of the card", rows, energy, None, 0.03, True, rng))
    path = pathlib.Path(__file__).parent.parent / "tests/data/reference_fits.json"
    path.write_text(json.dumps({"made_by": "scripts/reference_fits.py", "problems": problems}, indent=1) + "\n")
    for p in problems:
        print(p["name"], p["objective"], [f"{v:.4g}" for v in p["parameters"]])


if __name__ == "__main__":
    main()
