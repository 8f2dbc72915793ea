"""A run slow enough to be caught in the middle: what it is labelling and what it left."""

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from vidcls_batch.config import Config
from vidcls_batch.dataset.events import read_events
from vidcls_batch.storage import StorageOptions, open_store

NUM_CLIPS = 60
DECODES = "decodes.txt"  # beside the run's folder: the number of a clip each time it is decoded


def on_cluster(config: Config, address: str, folder: Path, **resources: object) -> Config:
    """The run, on machines that share this one's disk."""
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"ray_address": address}),
            "manifest": config.manifest.model_copy(update={"allow": (str(folder),)}),
            "resources": config.resources.model_copy(update=resources),
        }
    )


def events(config: Config) -> list[dict]:
    return list(read_events(open_store(config.run.path, options=StorageOptions())))


def decoded_again(config: Config) -> int:
    """Decodes beyond one of each clip and one more of each canary clip."""
    decodes = (Path(config.run.path).parent / DECODES).read_text().split()
    return len(decodes) - NUM_CLIPS - config.run.canary_clips


def committed(config: Config) -> dict[str, tuple[bytes, int]]:
    """Name of each committed file -> its bytes and inode."""
    folder = Path(config.run.path) / "predictions"
    if not folder.is_dir():
        return {}
    return {p.name: (p.read_bytes(), p.stat().st_ino) for p in folder.glob("unit-*.parquet")}


def assert_exactly_the_manifest(config: Config) -> None:
    table = pd.read_parquet(Path(config.run.path) / "predictions")
    assert table["clip_id"].tolist() == [f"c{i:04d}" for i in range(NUM_CLIPS)]
    assert set(table["status"]) == {"ok"}
    assert (Path(config.run.path) / "_SUCCESS").exists()
    leftovers = [p for p in (Path(config.run.path) / "predictions").iterdir() if not p.name.startswith("unit-")]
    assert leftovers == []


def wait_for(condition: Callable[[], object], *, timeout_s: float = 180) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
