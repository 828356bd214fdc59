import json

import duckdb

from expected import INSTANTS, SUMS, check, files, schema, summary

WANTED = {
    "f64": "DOUBLE", "i64": "BIGINT", "u64": "UBIGINT", "u32": "UINTEGER",
    "label": "VARCHAR", "text": "VARCHAR", "labels": "VARCHAR[]", "timestamp": "TIMESTAMP WITH TIME ZONE",
}
connection = duckdb.connect()
found = {}
for table in schema:
    source = f"read_parquet({files(table)!r})"
    described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    check(table, {row[0]: row[1] for row in described}, WANTED)
    first = f"epoch_ms(min({INSTANTS[table]}))" if INSTANTS[table] else "NULL"
    found[table] = summary(*connection.execute(f"SELECT count(*), sum({SUMS[table]}), {first} FROM {source}").fetchone())

    # Figures too, and they are those of the column.
    for column in (c["name"] for c in schema[table] if c["type"] == "f64"):
        extremes = (
            f"SELECT min(stats_min_value::DOUBLE), max(stats_max_value::DOUBLE) FROM parquet_metadata({files(table)!r}) "
            f"WHERE path_in_schema = '{column}'"
        )
        told, real = (connection.execute(q).fetchone() for q in (extremes, f"SELECT min({column}), max({column}) FROM {source}"))
        assert told == real, (table, column, told, real)

    # Every row group says between which values its instants lie, so that a reader can leave it out.
    if INSTANTS[table]:
        statistics = connection.execute(
            "SELECT stats_min_value, stats_max_value FROM parquet_metadata(" + repr(files(table)) + ") "
            f"WHERE path_in_schema = '{INSTANTS[table]}'"
        ).fetchall()
        assert statistics and all(low and high for low, high in statistics), (table, statistics)
    keys = connection.execute(f"SELECT decode(key) FROM parquet_kv_metadata({files(table)!r})").fetchall()
    assert {"energylens.format_version", "energylens.clock_anchor", "energylens.host"} <= {k for (k,) in keys}, keys

# The columns with the most rows are encoded for what they are.
encodings = dict(connection.execute(
    f"SELECT path_in_schema, first(encodings) FROM parquet_metadata({files('samples')!r}) GROUP BY ALL"
).fetchall())
assert "RLE_DICTIONARY" in encodings["device"] and "RLE_DICTIONARY" in encodings["host"], encodings
assert "DELTA_BINARY_PACKED" in encodings["t_mono_ns"] and "DELTA_BINARY_PACKED" in encodings["t"], encodings
print(json.dumps(found))
