import sys

# The working directory may be somebody else's: nothing in it is taken for a module, whatever it is called.
sys.path[:] = [place for place in sys.path if place]

import os

try:
    here = os.path.realpath(os.getcwd())
    sys.path[:] = [place for place in sys.path if os.path.realpath(place) != here]
except OSError:
    pass

import duckdb

# Without arguments, the question was whether there is a DuckDB.
if len(sys.argv) == 1:
    sys.exit(0)

import csv
import json
import math

task, views, query = sys.argv[1:]


def plain(value):
    """JSON has no word for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def distinct(names):
    """Names as keys, of which a second `model` becomes `model_1`."""
    keys = []
    for name in names:
        key, count = name, 0
        while key in keys:
            count += 1
            key = f"{name}_{count}"
        keys.append(key)
    return keys


def as_text(relation):
    """The same columns, those that hold several values as DuckDB writes them: CSV has one text a field."""
    kinds = [str(kind) for kind in relation.types]
    nested = [kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION(")) for kind in kinds]
    if not any(nested):
        return relation
    columns = [f"#{i}::VARCHAR" if several else f"#{i}" for i, several in enumerate(nested, 1)]
    return relation.project(", ".join(columns))


def carry_out(connection):
    if task == "table":
        result = connection.sql(query)
        if result is not None:
            result.show(max_rows=1000, max_width=160)
    elif task == "csv":
        result = connection.sql(query)
        names = result.columns if result is not None else []
        rows = as_text(result).fetchall() if result is not None else []
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
    else:
        cursor = connection.execute(query)
        names = distinct([column[0] for column in cursor.description or []])
        rows = [dict(zip(names, plain(row))) for row in cursor.fetchall()]
        print(json.dumps(rows, default=str, indent=1, allow_nan=False))
    sys.stdout.flush()


try:
    connection = duckdb.connect()
    if task == "parse":
        print(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()[0])
        sys.exit(0)
    connection.execute(views)
    carry_out(connection)
except duckdb.Error as error:
    sys.exit(str(error))
except BrokenPipeError:
    # Whoever reads has seen enough, as `head` has. What is still in the buffer has nowhere to go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
