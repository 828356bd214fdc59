"""Fills a lake as `energylens compact --partition` lays it out with what so many nodes record in so many days, and asks it.

    target/python-env/bin/python scripts/simulate_lake.py CAMPAIGN LAKE --nodes 10 --days 1

The samples of one campaign are repeated, moved in time and given to other nodes: row counts, encodings and sizes are those
of a recording; only the work on the nodes is the same everywhere. docs/scale.md quotes what this prints.
"""

import argparse
import glob
import os
import time

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DAY_MS = 86_400_000
ROW_GROUP_ROWS = 262_144
DELTA = ["t_mono_ns", "t_prev_poll_ns", "energy_counter_uj", "t_device_ns", "t"]
WORDS = ["device", "source", "job_id", "host", "power_w"]

parser = argparse.ArgumentParser()
parser.add_argument("campaign")
parser.add_argument("lake")
parser.add_argument("--nodes", type=int, default=10)
parser.add_argument("--days", type=int, default=1)
options = parser.parse_args()

[source] = glob.glob(os.path.join(glob.escape(options.campaign), "samples-*.parquet"))
one = pq.read_table(source).sort_by("t_mono_ns")
span_ns = pc.max(one["t_mono_ns"]).as_py() - pc.min(one["t_mono_ns"]).as_py() + 1
energy_uj = pc.max(one["energy_counter_uj"]).as_py()
repeats = DAY_MS * 1_000_000 // span_ns


def moved(table, node, day, repeat):
    """The recording as node `node` has it on its `day`, for the so-manieth time."""
    shift_ns = (day * repeats + repeat) * span_ns
    first_ms = 20_000 * DAY_MS + day * DAY_MS + repeat * span_ns // 1_000_000
    columns = {name: table[name] for name in table.column_names}
    for name in ("t_mono_ns", "t_prev_poll_ns"):
        columns[name] = pc.add(table[name], shift_ns)
    since_ns = pc.subtract(table["t_mono_ns"], pc.min(table["t_mono_ns"]))
    since_ms = pc.multiply(pc.divide(since_ns, 10_000_000), 10)
    columns["t"] = pc.add(since_ms, first_ms).cast(pa.timestamp("ms", "UTC"))
    columns["energy_counter_uj"] = pc.add(table["energy_counter_uj"], pa.scalar((day * repeats + repeat) * energy_uj, pa.uint64()))
    columns["host"] = pa.array([f"n{node:05}"] * len(table)).dictionary_encode()
    return pa.table(columns, schema=table.schema)


started, rows = time.time(), 0
for node in range(options.nodes):
    for day in range(options.days):
        date = time.strftime("%Y-%m-%d", time.gmtime((20_000 + day) * 86_400))
        directory = os.path.join(options.lake, "samples", f"date={date}", f"node=n{node:05}")
        os.makedirs(directory, exist_ok=True)
        with pq.ParquetWriter(
            os.path.join(directory, "simulated.parquet"), one.schema, compression="zstd", compression_level=6,
            use_dictionary=WORDS, column_encoding={name: "DELTA_BINARY_PACKED" for name in DELTA},
        ) as writer:
            waiting = []
            for repeat in range(repeats):
                waiting.append(moved(one, node, day, repeat))
                if sum(map(len, waiting)) >= ROW_GROUP_ROWS or repeat == repeats - 1:
                    # Within a row group by device, as energylens writes it.
                    group = pa.concat_tables(waiting).unify_dictionaries()
                    order = pa.table({"device": group["device"].cast(pa.string()), "t": group["t_mono_ns"]})
                    group = group.take(pc.sort_indices(order, sort_keys=[("device", "ascending"), ("t", "ascending")]))
                    writer.write_table(group, row_group_size=len(group))
                    rows += len(group)
                    waiting = []
files = glob.glob(os.path.join(glob.escape(options.lake), "samples/*/*/*.parquet"))
size = sum(map(os.path.getsize, files))
print(f"{options.nodes} nodes x {options.days} days: {len(files)} files, {rows} rows, {size} bytes, {size / rows:.2f} a row,")
print(f"  {size / options.nodes / options.days / 1e6:.1f} MB per node and day; written in {time.time() - started:.0f} s")

lake = f"read_parquet('{options.lake}/samples/*/*/*.parquet', hive_partitioning = true)"
noon = f"TIMESTAMPTZ '{time.strftime('%Y-%m-%d', time.gmtime(20_000 * 86_400))} 12:00:00+00'"
QUESTIONS = {
    "rows of everything": f"SELECT count(*) FROM {lake}",
    "energy of each node and day": f"""
        SELECT node, date, sum(j) / 3.6e6 AS kwh FROM (
          SELECT node, date, (max(energy_counter_uj) - min(energy_counter_uj)) / 1e6 AS j FROM {lake} GROUP BY node, date, device)
        GROUP BY ALL""",
    "one minute of one node": f"""
        SELECT device, count(*), avg(power_w) FROM {lake}
        WHERE node = 'n00000' AND t BETWEEN {noon} AND {noon} + INTERVAL 1 MINUTE GROUP BY device""",
    "mean power of every device by the hour": f"""
        SELECT node, device, time_bucket(INTERVAL 1 HOUR, t) AS hour,
          (max(energy_counter_uj) - min(energy_counter_uj)) / 1e6 / 3600 AS w FROM {lake} GROUP BY ALL""",
}
for name, sql in QUESTIONS.items():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    began = time.time()
    found = connection.execute(sql).fetchall()
    assert found, name
    print(f"{name}: {time.time() - began:.2f} s, {len(found)} rows")
