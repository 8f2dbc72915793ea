"""Runs whose members no device holds together: several pools of classifiers, one table."""

from pathlib import Path

import pandas as pd
import pytest
from contracts.tiny_checkpoints import LABELS
from slow_run import committed, wait_for
from worker_faults import BACKEND, with_fault

from vidcls_batch import grouping
from vidcls_batch.config import Config
from vidcls_batch.errors import ConfigError
from vidcls_batch.grouping import MemberMemory, fewest_groups
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.pipeline import Stages, UnitShare, build_dataset, operator_names
from vidcls_batch.progress import SilentProgress
from vidcls_batch.resources import Capacity, stage_resources
from vidcls_batch.retry import retry_failed
from vidcls_batch.run_spec import resolve_run
from vidcls_batch.storage import StorageOptions

# Columns that say how long something took or which try it was: never the same twice.
TIMES = ["fetch_ms", "decode_ms", "infer_ms"]
GROUPS = [["vm"], ["ts"]]
SLOW_CLIPS = 30  # each takes half a second to decode


class Said(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def table(config: Config) -> pd.DataFrame:
    return pd.read_parquet(Path(config.run.path) / "predictions").drop(columns=TIMES)


def in_groups(config: Config, groups: object = GROUPS, **resources: object) -> Config:
    tree = config.model_dump()
    tree["resources"] |= {"groups": groups, **resources}
    return Config.model_validate(tree)


@pytest.fixture
def evidence_config(make_config, write_manifest, clips, tmp_path):
    """Two members of other samplings that store all they say, over good clips and one that is missing."""
    manifest = write_manifest([*clips[:6], clips[0].parent / "not-there.mp4"])

    def make(run: str, **changes) -> Config:
        return make_config(
            manifest,
            run={"path": str(tmp_path / run), "canary_clips": 2},
            output={"unit_clips": 4, "member_logits": True, "member_embeddings": True},
            **changes,
        )

    return make


@pytest.mark.usefixtures("ray_session")
def test_two_groups_give_the_rows_of_one_to_the_last_bit(evidence_config, models):
    samplings = {"vm": {"rule": "uniform"}, "ts": {"rule": "uniform", "views": 2}}
    members = [
        {"name": name, "family": family, "checkpoint": str(path), "sampling": samplings[name]}
        for name, family, path in (("vm", "videomae", models.videomae), ("ts", "timesformer", models.timesformer))
    ]
    alone = evidence_config("one", members=members)
    run_labeling(alone, progress=SilentProgress())
    grouped = in_groups(evidence_config("two", members=members))
    outcome = run_labeling(grouped, progress=SilentProgress())
    pd.testing.assert_frame_equal(table(grouped), table(alone), check_exact=True)
    assert outcome.statuses == {"ok": 6, "fetch_error": 1}
    assert table(grouped)["ts_logits"].notna().sum() == 6


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_auto_measures_the_members_and_says_how_they_are_split(evidence_config, monkeypatch):
    config, said = in_groups(evidence_config("auto"), "auto", device_memory_mb=100_000), Said()
    outcome = run_labeling(config, progress=said)
    assert "One device holds all members" in said.lines
    # A later look at what failed, on smaller devices.
    split = MemberMemory({"vm": 6 << 20, "ts": 5 << 20}, 9 << 20)
    monkeypatch.setattr(grouping, "measure_members", lambda *_, **__: split)
    retried = retry_failed(
        config.run.path, statuses=["fetch_error"], options=StorageOptions(), overrides=[], progress=said
    )
    assert "2 groups of members: vm (6 MiB); ts (5 MiB)" in said.lines
    assert retried.statuses == outcome.statuses == {"ok": 6, "fetch_error": 1}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("private", [True, False])
def test_each_group_is_an_operator_of_its_own(make_config, private):
    spec = resolve_run(in_groups(make_config("unused.csv")))
    resources = stage_resources(
        spec.config.resources,
        capacity=Capacity(num_cpus=2, num_gpus=0, private=private),
        frame_bytes=spec.frame_bytes,
        groups=spec.config.resources.groups,
    )
    stages = Stages("unused", spec.storage, spec.decode_settings(), spec.classify_settings(resources))
    dataset = build_dataset([UnitShare(unit=0, attempts=1)], stages=stages, resources=resources)
    assert [name.partition("[")[0] for name in operator_names(dataset)] == [
        "Input",
        "MapBatches(_read_shares)",
        "StreamingRepartition",
        "MapBatches(_decode_block)",
        "MapBatches(_ClassifierActor)",
        "MapBatches(_ClassifierActor)",
    ]


def test_members_that_a_cascade_asks_first_stay_together_in_the_first_group(make_config, models):
    member = {"family": "videomae", "checkpoint": str(models.videomae), "sampling": {"rule": "uniform"}}
    config = make_config(
        "unused.csv",
        members=[{**member, "name": name} for name in "abc"],
        ensemble={"cascade": {"first": ["b", "c"], "margin": 0.5}},
    )
    spec = resolve_run(config)
    found = fewest_groups(spec, MemberMemory({"a": 3, "b": 2, "c": 2}, 5))
    assert [group.members for group in found] == [("b", "c"), ("a",)]
    assert fewest_groups(spec, MemberMemory({"a": 3, "b": 2, "c": 2}, 7)) == ()
    with pytest.raises(ConfigError, match=r"b \+ c"):
        fewest_groups(spec, MemberMemory({"a": 3, "b": 2, "c": 2}, 3))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_in_groups_goes_on_after_its_worker_and_its_driver_were_killed(
    make_config, write_manifest, clips, tmp_path, start
):
    paths = [tmp_path / f"{i:03d}.mp4" for i in range(SLOW_CLIPS)]
    for i, path in enumerate(paths):
        path.write_bytes(with_fault(clips[i % len(clips)].read_bytes(), "slow"))
    config = in_groups(make_config(write_manifest(paths), decode={"backend": BACKEND}))
    driver = start(config)
    wait_for(lambda: committed(config))
    pool = driver.named("ray::MapWorker")
    assert len(pool) == 2, [worker.cmdline() for worker in pool]
    pool[-1].kill()
    before = len(committed(config))
    driver.wait_for(lambda: len(committed(config)) > before)
    driver.kill()
    kept = committed(config)
    again = start(config)
    assert again.finish() == 0, again.tail()
    assert {name: committed(config)[name] for name in kept} == kept
    rows = pd.read_parquet(Path(config.run.path) / "predictions")
    assert rows["clip_id"].tolist() == [f"c{i:04d}" for i in range(SLOW_CLIPS)]
    assert set(rows["status"]) == {"ok"}
    assert set(rows["label"]) <= set(LABELS)
