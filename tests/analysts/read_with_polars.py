import json

import polars as pl

from expected import INSTANTS, SUMS, check, files, schema, summary

WANTED = {
    "f64": pl.Float64, "i64": pl.Int64, "u64": pl.UInt64, "u32": pl.UInt32,
    "label": (pl.Categorical, pl.Categorical()), "text": pl.String, "labels": pl.List(pl.String),
    "timestamp": pl.Datetime("ms", "UTC"),
}
found = {}
for table in schema:
    frame = pl.scan_parquet(files(table))
    check(table, dict(frame.collect_schema()), WANTED)
    first = pl.col(INSTANTS[table]).min().dt.epoch("ms") if INSTANTS[table] else pl.lit(None)
    row = frame.select(pl.len().alias("rows"), pl.col(SUMS[table]).sum().alias("sum"), first.alias("first")).collect()
    found[table] = summary(*row.row(0))
print(json.dumps(found))
