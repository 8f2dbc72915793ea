"""One of several drivers that commit the same units at the same time: `python commit_racer.py RUN ENDPOINT OWNER`."""

import json
import sys
import time

import pyarrow as pa

from vidcls_batch.dataset.commit import UnitCollector
from vidcls_batch.dataset.plan import read_unit, require_plan
from vidcls_batch.schema import prediction_schema, result_schema
from vidcls_batch.storage import StorageOptions, open_store


def commit_all(run_uri: str, endpoint_url: str, owner: str) -> dict[str, list[int]]:
    store = open_store(run_uri, options=StorageOptions(endpoint_url=endpoint_url))
    plan = require_plan(store)
    every = range(plan.num_units)
    collector = UnitCollector(
        plan, store=store, schema=prediction_schema((), extras=plan.extra_schema), owner=owner, metadata={},
        pending=every,
    )  # fmt: skip
    tables = [_rows(store, unit) for unit in every]
    while time.time() % 2 > 0.05:  # all start at the same even second
        time.sleep(0.01)
    committed = [unit for table in tables for unit in collector.add(table)]
    return {"ours": [c.unit for c in committed if c.is_ours], "theirs": [c.unit for c in committed if not c.is_ours]}


def _rows(store, unit: int) -> pa.Table:
    ids = read_unit(store, unit)["clip_id"].to_pylist()
    rows = [{"unit": unit, "clip_id": clip_id, "status": "no_video", "attempts": 1} for clip_id in ids]
    return pa.Table.from_pylist(rows, schema=result_schema(()))


if __name__ == "__main__":
    print(json.dumps(commit_all(*sys.argv[1:])))
