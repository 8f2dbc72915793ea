"""A small run without videos or models: a manifest, its plan, and rows as a classifier would send them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset.rows import RESULTS, labeled
from tests.s3 import S3Server
from vidcls_batch.config import Config, parse_config
from vidcls_batch.dataset.commit import UnitCollector
from vidcls_batch.dataset.plan import Plan, make_plan, read_unit
from vidcls_batch.storage import StorageOptions, Store, open_store, storage_options

RESERVED = frozenset(["clip_id", "uri", "start_s", "end_s", "unit", *RESULTS.names])


def config_of(run: str, manifest: str, **overrides: Any) -> Config:
    tree: dict[str, Any] = {
        "run": run,
        "manifest": manifest,
        "label_set": ["push", "pull"],
        "members": [{"name": "a", "family": "videomae", "checkpoint": "x"}],
    }
    return parse_config(tree | overrides)


@dataclass
class SmallRun:
    config: Config
    store: Store
    options: StorageOptions
    plan: Plan

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*self.plan.schema, *RESULTS])

    def ids(self, unit: int) -> list[str]:
        return read_unit(self.store, unit)["clip_id"].to_pylist()

    def collector(self, *, owner: str = "owner", **overrides: Any) -> UnitCollector:
        return UnitCollector(
            self.plan, store=self.store, schema=self.schema, owner=owner, metadata={"run": "facts"}, **overrides
        )

    def commit_all(self) -> None:
        collector = self.collector()
        for unit in range(self.plan.num_units):
            collector.add(labeled(unit, self.ids(unit)))


@pytest.fixture(params=["local", "s3"])
def run_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        return f"{server.uri}/runs/one"
    return str(tmp_path / "run")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., SmallRun]:
    def make(uri: str | None = None, *, clips: int = 10, unit_clips: int = 4, **columns: Any) -> SmallRun:
        manifest = tmp_path / "clips.parquet"
        ids = [f"clip-{i:03d}" for i in range(clips)]
        rows = {
            "clip_id": ids,
            "uri": [f"/videos/{i}.mp4" for i in ids],
            "caption": [f"no {i}" for i in ids],
            **columns,
        }
        pq.write_table(pa.table(rows), manifest)
        config = config_of(uri or str(tmp_path / "run"), str(manifest), output={"unit_clips": unit_clips})
        options = storage_options(config.run)
        store = open_store(config.run.path, options=options)
        return SmallRun(config, store, options, make_plan(config, store=store, options=options, reserved=RESERVED))

    return make
