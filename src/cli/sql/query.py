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


try:
    connection = duckdb.connect()
    if task == "parse":
        print(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()[0])
        sys.exit(0)
    connection.execute(views)
    if task == "table":
        result = connection.sql(query)
        if result is not None:
            result.show(max_rows=1000, max_width=160)
    else:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description or []]
        rows = cursor.fetchall()
        if task == "csv":
            csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
        else:
            rows = [dict(zip(names, plain(row))) for row in rows]
            print(json.dumps(rows, default=str, indent=1, allow_nan=False))
except duckdb.Error as error:
    sys.exit(str(error))
