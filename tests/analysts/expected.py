"""What each reader is held against: the schema as `energylens tables --json` prints it, and the files of each table.

Called as `SCRIPT CAMPAIGN SCHEMA.json`; every reader's script prints one JSON object, table -> summary, and the test
compares the readers with one another.
"""

import glob
import json
import os
import sys

campaign = sys.argv[1]
with open(sys.argv[2]) as file:
    schema = {table["table"]: table["columns"] for table in json.load(file)}


def files(table):
    """The sealed files of a table, which is never empty here."""
    found = glob.glob(os.path.join(glob.escape(campaign), f"{table}.parquet"))
    found += glob.glob(os.path.join(glob.escape(campaign), f"{table}-*.parquet"))
    assert found, f"no file of table {table}"
    return sorted(found)


def check(table, found, wanted):
    """`found` maps columns to the reader's types, `wanted` maps our types to them."""
    expected = {c["name"]: wanted[c["type"]] for c in schema[table]}
    assert list(found) == list(expected), f"{table}: {list(found)}"
    for name, types in expected.items():
        types = types if isinstance(types, tuple) else (types,)
        assert found[name] in types, f"{table}.{name}: found {found[name]!r}, expected one of {types}"


# A column of each table whose sum all readers must agree on, and the instants that they must agree on.
SUMS = {"samples": "power_w", "telemetry": "power_limit_w", "marks": "t_mono_ns", "runs": "total_duration_s", "phases": "energy_j"}
INSTANTS = {"samples": "t", "telemetry": "t", "marks": "t", "runs": "t_begin", "phases": None}


def summary(rows, total, first_ms):
    return {"rows": int(rows), "sum": float(total), "first_ms": None if first_ms is None else int(first_ms)}
