"""Runs every query of docs/analysis.md in DuckDB: `check_analysis.py CAMPAIGN VIEWS.sql PAGE.md`.

Each answer must have rows and hold a property that a wrong query or a wrong table would break.
"""

import re
import sys

import duckdb

_, campaign, views, page = sys.argv
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
connection.execute(open(views).read())
text = open(page).read()
queries = {int(n): sql for n, sql in re.findall(r"^## (\d+)\..*?^```sql\n(.*?)^```", text, re.S | re.M)}


def ask(sql):
    result = connection.execute(sql)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


def column(rows, name):
    return [row[name] for row in rows]


def one(sql):
    return connection.execute(sql).fetchone()[0]


def ascends(values):
    return all(a <= b for a, b in zip(values, values[1:]))


def what_was_measured(rows):
    assert sum(column(rows, "runs")) == one("SELECT count(*) FROM runs")
    assert all(row["took"].total_seconds() > 0 and row["first_run"].year > 2000 for row in rows)


def cheapest(rows):
    assert len(rows) == 10 and ascends(column(rows, "j_per_token"))
    assert all(0 < row["j_per_token_std"] < row["j_per_token"] for row in rows)


def batches(rows):
    # Weights are read once for all sequences of a batch: the largest batches cost less per token than the smallest.
    assert len(rows) > 2 and rows[-1]["j_per_token"] < rows[0]["j_per_token"], rows


def prefill(rows):
    assert all(0 < row["prefill_share"] < 1 for row in rows), rows
    # Long prompts with short answers spend more of it on the prompt.
    long = [r["prefill_share"] for r in rows if r["input_per_output"] >= 8]
    short = [r["prefill_share"] for r in rows if r["input_per_output"] <= 1]
    assert long and short and sum(long) / len(long) > sum(short) / len(short)


def uncertainty(rows):
    assert len(rows) == 20 and all(row["uncertainty_percent"] > 0 for row in rows)


def power(rows):
    assert len({row["device"] for row in rows}) == 8
    # The simulated GPUs are limited to 400 W and idle at tens of watts.
    assert all(20 < row["mean_power_w"] < 410 for row in rows)
    assert rows[0]["t"].tzinfo is not None


def idle(rows):
    # Every run of the demo has device 0, and few have all eight.
    assert len(rows) == 8 and all(0 <= row["idle_j"] < row["energy_j"] for row in rows), rows
    assert rows[7]["idle_percent"] > 20 > rows[0]["idle_percent"], rows


def front(rows):
    assert len(rows) > 1 and ascends(column(rows, "mean_tpot_s"))
    assert ascends([-energy for energy in column(rows, "j_per_token")])
    best = one("SELECT min(energy_j / (batch_size * output_tokens)) FROM phases WHERE phase = 'total' AND output_tokens > 1")
    assert rows[-1]["j_per_token"] == best


def watched(rows):
    assert len(rows) == 8
    # The heartbeat is written at least once a second; the simulated node polls without lateness.
    assert all(0 < row["bracket_ms"][0] <= row["bracket_ms"][1] and row["longest_gap_s"] < 1.5 for row in rows), rows


def day(rows):
    [row] = rows
    # Eight GPUs of at least 50 W and at most 400 W for 24 h, times 1.2.
    assert 8 * 0.05 * 24 * 1.2 < row["kwh_per_day"] < 8 * 0.4 * 24 * 1.2, row
    assert abs(row["price_per_day"] - 0.25 * row["kwh_per_day"]) < 1e-9


CHECKS = [what_was_measured, cheapest, batches, prefill, uncertainty, power, idle, front, watched, day]
assert sorted(queries) == list(range(1, len(CHECKS) + 1)), sorted(queries)
for number, check in enumerate(CHECKS, 1):
    rows = ask(queries[number])
    assert rows, f"question {number} has no answer"
    try:
        check(rows)
    except AssertionError as error:
        raise AssertionError(f"question {number}: {error or rows[:5]}") from error

# The parts of a run make up the whole, and the joules of the tables agree with the counters they came from.
apart = one("""
    SELECT max(abs(parts / whole - 1)) FROM (
      SELECT sum(energy_j) FILTER (phase <> 'total') AS parts, sum(energy_j) FILTER (phase = 'total') AS whole
      FROM phases WHERE run_id IN (SELECT run_id FROM phases WHERE phase = 'decode') GROUP BY run_id)""")
assert apart < 1e-6, apart
print(f"{len(CHECKS)} questions answered")
