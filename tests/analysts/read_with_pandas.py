"""pandas, and pyarrow below it: metadata of the fields, and which row groups a filter leaves out."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from expected import INSTANTS, SUMS, check, files, schema, summary

ARROW = {
    "f64": pa.float64(), "i64": pa.int64(), "u64": pa.uint64(), "u32": pa.uint32(),
    "label": pa.dictionary(pa.int32(), pa.string()), "text": pa.string(),
    "labels": pa.list_(pa.field("item", pa.string(), nullable=False)), "timestamp": pa.timestamp("ms", "UTC"),
}
found = {}
for table in schema:
    source = ds.dataset(files(table))
    check(table, {field.name: field.type for field in source.schema}, ARROW)
    for column in schema[table]:
        metadata = source.schema.field(column["name"]).metadata
        assert metadata[b"doc"].decode() == column["doc"], (table, column)
        assert metadata.get(b"unit", b"").decode() == column["unit"], (table, column)

    frame = pd.read_parquet(files(table), engine="pyarrow")
    for column in schema[table]:
        values = frame[column["name"]]
        if column["type"] == "timestamp":
            assert isinstance(values.dtype, pd.DatetimeTZDtype), (table, column, values.dtype)
        if column["type"] == "label":
            assert isinstance(values.dtype, pd.CategoricalDtype), (table, column, values.dtype)
    first = INSTANTS[table] and frame[INSTANTS[table]].min()
    found[table] = summary(len(frame), frame[SUMS[table]].sum(), first and first.value // 1_000_000)

# The last tenth of the time is in the later row groups: the others are not read.
[fragment] = ds.dataset(files("samples")).get_fragments()
groups = fragment.num_row_groups
instants = ds.dataset(files("samples")).to_table(columns=["t"])["t"]
low, high = pc.min_max(instants)["min"].as_py(), pc.min_max(instants)["max"].as_py()
late = fragment.subset(filter=pc.field("t") > pa.scalar(high - (high - low) / 10, pa.timestamp("ms", "UTC")))
assert groups > 1 and late.num_row_groups < groups, (groups, late.num_row_groups)

# So it is with figures: no phase took more than the most, and no group says that one may have.
[fragment] = ds.dataset(files("phases")).get_fragments()
most = pc.max(ds.dataset(files("phases")).to_table(columns=["energy_j"])["energy_j"]).as_py()
assert fragment.subset(filter=pc.field("energy_j") > most).num_row_groups == 0
assert fragment.subset(filter=pc.field("energy_j") >= most).num_row_groups > 0
floats = [(table, c["name"]) for table in schema for c in schema[table] if c["type"] == "f64"]
for table, name in floats:
    for file in map(pq.ParquetFile, files(table)):
        # A list is one leaf too, so that leaves count as fields do.
        column = file.schema_arrow.get_field_index(name)
        for group in range(file.num_row_groups):
            chunk = file.metadata.row_group(group).column(column)
            values = file.read_row_group(group, columns=[name])[name].drop_null()
            statistics = chunk.statistics
            assert chunk.path_in_schema == name and statistics.has_min_max == (len(values) > 0), (table, name, group)
            if len(values):
                assert (statistics.min, statistics.max) == tuple(pc.min_max(values).as_py().values()), (table, name)
print(json.dumps(found))
