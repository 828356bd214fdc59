import json

import pyarrow as pa
from datafusion import SessionContext

from expected import INSTANTS, SUMS, check, files, schema, summary

TEXT = (pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
LISTS = tuple(pa.list_(pa.field("item", of, nullable=False)) for of in (pa.string(), pa.string_view()))
WANTED = {
    "f64": pa.float64(), "i64": pa.int64(), "u64": pa.uint64(), "u32": pa.uint32(),
    "label": TEXT, "text": TEXT, "labels": LISTS, "timestamp": pa.timestamp("ms", "UTC"),
}
context = SessionContext()
found = {}
for table in schema:
    [file] = files(table)
    context.register_parquet(table, file)
    fields = context.table(table).schema()
    check(table, {field.name: field.type for field in fields}, WANTED)
    first = f"CAST(min({INSTANTS[table]}) AS BIGINT)" if INSTANTS[table] else "NULL"
    [batch] = context.sql(f"SELECT count(*) AS n, sum({SUMS[table]}) AS s, {first} AS f FROM {table}").collect()
    row = batch.to_pylist()[0]
    found[table] = summary(row["n"], row["s"], row["f"])
print(json.dumps(found))
