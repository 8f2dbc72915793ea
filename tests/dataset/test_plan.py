"""Plans: made once, the same for everybody, refused when they would be of another run."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset.conftest import RESERVED, SmallRun, config_of
from tests.s3 import S3Server
from vidcls_batch.dataset.claim import require_same_run
from vidcls_batch.dataset.plan import load_plan, make_plan, read_unit, require_plan, unit_path
from vidcls_batch.dataset.run_record import run_identity
from vidcls_batch.errors import ManifestError, RunMismatchError, StorageError
from vidcls_batch.storage import StorageOptions, open_store

MakeRun = Callable[..., SmallRun]
FORK = multiprocessing.get_context("fork")


def plan_again(run: SmallRun, **overrides: object) -> object:
    config = config_of(run.config.run.path, run.config.manifest.path, output={"unit_clips": 4})
    config = config.model_copy(update=overrides)
    return make_plan(config, store=run.store, options=run.options, reserved=RESERVED)


def test_units_hold_the_manifests_clips_in_order(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri, clips=10, unit_clips=4, weight=[float(i) for i in range(10)])
    assert (run.plan.num_clips, run.plan.num_units) == (10, 3)
    assert [run.plan.unit_size(u) for u in range(3)] == [4, 4, 2]
    tables = [read_unit(run.store, u) for u in range(3)]
    assert [t.num_rows for t in tables] == [4, 4, 2]
    table = pa.concat_tables(tables)
    assert table.schema.equals(run.plan.schema)
    assert table.column_names == ["clip_id", "uri", "start_s", "end_s", "caption", "weight"]
    assert table["clip_id"].to_pylist() == [f"clip-{i:03d}" for i in range(10)]
    assert table["weight"].to_pylist() == [float(i) for i in range(10)]
    assert load_plan(run.store) == run.plan
    with pytest.raises(IndexError):
        run.plan.unit_size(3)


@pytest.mark.parametrize(("clips", "unit_clips", "sizes"), [(1, 1, [1]), (8, 4, [4, 4]), (5, 100, [5])])
def test_the_last_unit_holds_what_is_left(make_run: MakeRun, clips: int, unit_clips: int, sizes: list[int]) -> None:
    run = make_run(clips=clips, unit_clips=unit_clips)
    assert [read_unit(run.store, u).num_rows for u in range(run.plan.num_units)] == sizes


def test_a_unit_can_span_many_batches_of_the_manifest(make_run: MakeRun) -> None:
    run = make_run(clips=150_000, unit_clips=100_000)
    assert [read_unit(run.store, u).num_rows for u in range(2)] == [100_000, 50_000]
    assert read_unit(run.store, 1)["clip_id"][-1].as_py() == "clip-149999"


def test_planning_again_changes_nothing_and_does_not_read_the_manifest(
    make_run: MakeRun, run_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(run_uri)
    before = {o.path: run.store.read_bytes(o.path) for o in run.store.list()}
    monkeypatch.setattr("vidcls_batch.dataset.plan.open_manifest", None)
    assert plan_again(run) == run.plan
    assert {o.path: run.store.read_bytes(o.path) for o in run.store.list()} == before


def test_a_manifest_with_a_new_date_and_the_same_bytes_is_the_same(make_run: MakeRun) -> None:
    run = make_run()
    Path(run.config.manifest.path).touch()
    assert plan_again(run) == run.plan


def test_a_changed_manifest_is_refused_with_the_difference(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    pq.write_table(pa.table({"uri": ["/v/new.mp4"]}), run.config.manifest.path)
    with pytest.raises(RunMismatchError, match=r"is not the one the run folder .* was planned from:") as caught:
        plan_again(run)
    assert "digest: " in str(caught.value)
    assert "num_bytes: " in str(caught.value)
    assert "run folder of its own" in str(caught.value)


def test_a_folder_that_grew_is_refused_and_says_by_how_much(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).touch()
    config = config_of(str(tmp_path / "run"), str(tmp_path / "videos"))
    store = open_store(config.run.path, options=StorageOptions())
    plan = make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED)
    assert make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED) == plan
    (tmp_path / "videos" / "c.mp4").touch()
    (tmp_path / "videos" / "a.mp4").unlink()
    with pytest.raises(RunMismatchError) as caught:
        make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED)
    assert f"1 files added, e.g. {tmp_path}/videos/c.mp4" in str(caught.value)
    assert f"1 files removed, e.g. {tmp_path}/videos/a.mp4" in str(caught.value)


def test_a_changed_config_is_refused_key_by_key(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    changed = config_of(
        run.config.run.path,
        run.config.manifest.path,
        output={"unit_clips": 8, "member_logits": True},
        decode={"backend": "decord"},
        members=[{"name": "a", "family": "timesformer", "checkpoint": "x"}],
    )
    with pytest.raises(RunMismatchError) as caught:
        make_plan(changed, store=run.store, options=run.options, reserved=RESERVED)
    lines = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  - ")]
    assert lines == [
        '- decode.backend: "auto" → "decord"',
        '- members.0.family: "videomae" → "timesformer"',
        "- output.member_logits: false → true",
        "- output.unit_clips: 4 → 8",
    ]


def test_what_does_not_decide_the_result_may_change_on_resume(make_run: MakeRun) -> None:
    run = make_run()
    changed = config_of(
        run.config.run.path,
        run.config.manifest.path,
        output={"unit_clips": 4, "compression": "snappy"},
        decode={"timeout_s": 5, "fetch_retries": 9},
        resources={"batch_size": 3, "device": "cpu"},
    )
    assert make_plan(changed, store=run.store, options=run.options, reserved=RESERVED) == run.plan


def test_facts_the_config_points_to_belong_to_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    config = config_of(str(tmp_path / "other"), run.config.manifest.path)
    store = open_store(config.run.path, options=StorageOptions())
    old = run_identity(config, facts={"label_set": {"digest": "aaa"}})
    new = run_identity(config, facts={"label_set": {"digest": "bbb"}})
    make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED, identity=old)
    require_same_run(store, old)
    with pytest.raises(RunMismatchError, match=r'label_set\.digest: "aaa" → "bbb"'):
        make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED, identity=new)
    with pytest.raises(RunMismatchError, match=r'label_set\.digest: "aaa" → "bbb"'):
        require_same_run(store, new)


def test_a_refused_manifest_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\n/1\n\n/1\n")
    config = config_of(str(tmp_path / "run"), str(tmp_path / "m.csv"))
    store = open_store(config.run.path, options=StorageOptions())
    with pytest.raises(ManifestError):
        make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED)
    assert not (tmp_path / "run").exists()


def test_a_manifest_that_changes_while_it_is_planned_leaves_no_units(make_run: MakeRun, tmp_path: Path) -> None:
    manifest = make_run(str(tmp_path / "other")).config.manifest.path
    config = config_of(str(tmp_path / "run"), manifest, output={"unit_clips": 4})
    store = open_store(config.run.path, options=StorageOptions())
    with pytest.raises(ManifestError, match="changed while it was planned"):
        make_plan(
            config,
            store=store,
            options=StorageOptions(),
            reserved=RESERVED,
            progress=lambda _: os.utime(manifest, ns=(1, time.time_ns())),
        )
    assert [o.path for o in store.list("plan")] == ["plan/claim.json"]
    assert load_plan(store) is None


def test_progress_counts_the_rows_of_both_passes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(clips=100_000, unit_clips=50_000)
    config = config_of(str(tmp_path / "other"), run.config.manifest.path)
    store = open_store(config.run.path, options=StorageOptions())
    seen: list[int] = []
    make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED, progress=seen.append)
    assert seen == [65_536, 100_000, 65_536, 100_000]


def test_no_plan_and_a_damaged_plan_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    empty = open_store(str(tmp_path / "empty"), options=StorageOptions())
    assert load_plan(empty) is None
    with pytest.raises(StorageError, match="is no run folder"):
        require_plan(empty)
    run = make_run()
    run.store.put("plan/plan.json", b'{"num_clips": 3')
    with pytest.raises(StorageError, match=r"plan\.json is damaged"):
        require_plan(run.store)
    run.store.put(unit_path(0), b"PAR1")
    with pytest.raises(StorageError, match=r"unit-000000\.parquet is damaged"):
        read_unit(run.store, 0)


PLANNER = """
import sys
from vidcls_batch.config import parse_config
from vidcls_batch.dataset.plan import make_plan
from vidcls_batch.storage import StorageOptions, open_store
config = parse_config({"run": sys.argv[1], "manifest": sys.argv[2], "label_set": ["push", "pull"],
    "members": [{"name": "a", "family": "videomae", "checkpoint": "x"}], "output": {"unit_clips": 4}})
store = open_store(sys.argv[1], options=StorageOptions())
print("ready", flush=True)
make_plan(config, store=store, options=StorageOptions(), reserved=frozenset())
"""


def test_a_driver_killed_while_it_plans_is_followed_by_one_that_finishes(make_run: MakeRun, tmp_path: Path) -> None:
    reference = make_run(str(tmp_path / "reference"), clips=400)
    uri, chooser = str(tmp_path / "killed"), random.Random(3)
    store = open_store(uri, options=StorageOptions())
    planned = 0
    for _ in range(3):
        planner = subprocess.Popen(
            [sys.executable, "-c", PLANNER, uri, reference.config.manifest.path], stdout=subprocess.PIPE, text=True
        )
        assert planner.stdout is not None
        assert planner.stdout.readline() == "ready\n"
        enough = planned + chooser.randrange(1, 20)
        while planner.poll() is None and (not Path(uri).exists() or len(store.list("plan")) < enough):
            time.sleep(0.001)
        planner.send_signal(signal.SIGKILL)
        planner.communicate()
        planned = len(store.list("plan"))
        assert load_plan(store) is None, "the plan was finished before the kill"
    config = config_of(uri, reference.config.manifest.path, output={"unit_clips": 4})
    plan = make_plan(config, store=store, options=StorageOptions(), reserved=RESERVED)
    assert plan.num_units == 100
    for unit in range(100):
        assert read_unit(store, unit).equals(read_unit(reference.store, unit))


def _plan_in_child(config: object, options: StorageOptions, results: object) -> None:
    store = open_store(config.run.path, options=options)  # type: ignore[attr-defined]
    try:
        plan = make_plan(config, store=store, options=options, reserved=RESERVED)  # type: ignore[arg-type]
        results.put(plan.fingerprint)  # type: ignore[attr-defined]
    except RunMismatchError:
        results.put("refused")  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_drivers_with_two_configs_at_once_cannot_mix(
    kind: str, make_run: MakeRun, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    manifest = make_run(str(tmp_path / "other")).config.manifest.path
    options, uri = StorageOptions(), str(tmp_path / "contended")
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        options, uri = StorageOptions(endpoint_url=server.endpoint_url), f"{server.uri}/contended"
    configs = [config_of(uri, manifest, output={"unit_clips": size}) for size in (2, 3)]
    results = FORK.Queue()
    children = [FORK.Process(target=_plan_in_child, args=(configs[i % 2], options, results)) for i in range(4)]
    for child in children:
        child.start()
    outcomes = sorted(results.get(timeout=120) for _ in children)
    for child in children:
        child.join()
    plan = require_plan(open_store(uri, options=options))
    assert outcomes == sorted([plan.fingerprint] * 2 + ["refused"] * 2)
    assert plan.unit_clips in (2, 3)
    units = [read_unit(open_store(uri, options=options), u).num_rows for u in range(plan.num_units)]
    assert units == [plan.unit_size(u) for u in range(plan.num_units)]
