"""Small real runs: generated clips, tiny random models, one Ray cluster for all tests of a session."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from contracts.tiny_checkpoints import LABELS, timesformer, videomae
from driver import Driver
from slow_run import DECODES, NUM_CLIPS
from worker_faults import BACKEND, with_fault

from tests.s3 import CREDENTIALS
from vidcls_batch.config import Config, parse_config
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress
from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.motions import LABELS as MOTIONS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Models:
    """Two tiny checkpoints of the same three labels."""

    videomae: Path
    timesformer: Path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    return Models(videomae(folder / "v").path, timesformer(folder / "t").path)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve good clips of one second."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"good{i:02d}.mp4" for i in range(12)]
    for i, path in enumerate(paths):
        write_clip(path, label=MOTIONS[i % len(MOTIONS)], seed=i, size=(64, 48), fps=10, duration_s=1.0)
    return paths


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[..., Path]:
    def write(uris: Sequence[object], **extras: Sequence[object]) -> Path:
        return save_manifest(tmp_path / "manifest.parquet", uris, **extras)

    return write


@pytest.fixture
def make_config(tmp_path: Path, models: Models) -> Callable[..., Config]:
    def make(manifest: Path | str, **changes: Any) -> Config:
        return parse_config(config_tree(manifest, run=tmp_path / "run", models=models) | changes)

    return make


def save_manifest(path: Path, uris: Sequence[object], **extras: Sequence[object]) -> Path:
    ids = [f"c{i:04d}" for i in range(len(uris))]
    pd.DataFrame({"clip_id": ids, "uri": [str(u) for u in uris], **extras}).to_parquet(path)
    return path


def config_tree(manifest: Path | str, *, run: Path | str, models: Models) -> dict[str, Any]:
    return {
        "run": {"path": str(run), "canary_clips": 2},
        "manifest": str(manifest),
        "label_set": list(LABELS),
        "members": [
            {"name": "vm", "family": "videomae", "checkpoint": str(models.videomae), "sampling": {"rule": "uniform"}},
            {
                "name": "ts",
                "family": "timesformer",
                "checkpoint": str(models.timesformer),
                "sampling": {"rule": "uniform"},
            },
        ],
        "resources": {"batch_size": 4, "num_cpus": 2, "classify_actors": 1, "object_store_mb": 256},
        "output": {"unit_clips": 5},
    }


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One private cluster, so that not each test pays for Ray's start; its workers can import `worker_faults`."""
    import ray

    search_path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), search_path]))
    sys.path.insert(0, str(HERE))
    os.environ["RAY_worker_niceness"] = "0"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():  # for tests on S3: workers keep the environment they start with
            patch.setenv(name, value)
        _init_ray()
    yield
    ray.shutdown()
    sys.path.remove(str(HERE))
    if search_path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = search_path


def _init_ray() -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=5,
        object_store_memory=512 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts drivers; what is left of them ends with the test."""
    drivers: list[Driver] = []

    def run(config: Config, **options: Any) -> Driver:
        drivers.append(Driver(config, folder=tmp_path, **options))
        return drivers[-1]

    yield run
    for driver in drivers:
        driver.end()


@pytest.fixture(scope="session")
def finished_once(
    tmp_path_factory: pytest.TempPathFactory, models: Models, clips: list[Path], ray_session: None
) -> Config:
    """A finished run over good clips and one that is missing."""
    folder = tmp_path_factory.mktemp("finished")
    manifest = save_manifest(folder / "manifest.parquet", [*clips, clips[0].parent / "not-there.mp4"])
    config = parse_config(config_tree(manifest, run=folder / "run", models=models))
    run_labeling(config, progress=SilentProgress())
    return config


@pytest.fixture
def finished(finished_once: Config, tmp_path: Path, models: Models) -> Config:
    """A copy of it, to be changed at will; the manifest is the same file."""
    shutil.copytree(finished_once.run.path, tmp_path / "run")
    return parse_config(config_tree(finished_once.manifest.path, run=tmp_path / "run", models=models))


@pytest.fixture
def slow_config(make_config, write_manifest, clips, tmp_path) -> Config:
    """Sixty clips of which each takes half a second to decode."""
    folder = tmp_path / "slow"
    folder.mkdir()
    paths = []
    for i in range(NUM_CLIPS):
        path = folder / f"{i:03d}.mp4"
        path.write_bytes(with_fault(clips[i % len(clips)].read_bytes(), f"slow:{i}:{tmp_path / DECODES}"))
        paths.append(path)
    return make_config(write_manifest(paths), decode={"backend": BACKEND})
