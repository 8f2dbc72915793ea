"""Relabeling over run folders made of numbers; tests/pipeline/test_relabel.py does it over real runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.evidence_run import RandomMember, random_evidence, write_evidence_run
from vidcls_batch.calibrate import calibrate_run
from vidcls_batch.config import Config, parse_config, resolved
from vidcls_batch.dataset.plan import require_plan
from vidcls_batch.dataset.run_record import read_run_record
from vidcls_batch.dataset.verify import verify_run
from vidcls_batch.errors import ConfigError, IncompleteRunError, RunMismatchError
from vidcls_batch.progress import SilentProgress
from vidcls_batch.relabel import relabel_run
from vidcls_batch.retry import retry_failed
from vidcls_batch.storage import StorageOptions, open_store

LABELS = ("bike", "guitar", "swim", "yoga")
MEMBERS = (
    RandomMember("a", labels=LABELS),
    RandomMember("b", labels=("yoga", "swim", "guitar", "bike"), embedding_dim=6),
    RandomMember("c", labels=(*LABELS, "juggling")),
)
DECIDED = ["label", "label_id", "topk_labels", "a_label", "b_label", "c_topk_labels", "status"]
FLOATS = ["score", "margin", "entropy", "agreement", "divergence", "a_score", "topk_scores"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_evidence_run(
        tmp_path_factory.mktemp("source"),
        num_clips=23,
        unit_clips=8,
        labels=LABELS,
        members=MEMBERS,
        evidence=random_evidence(MEMBERS, labels=LABELS),
        statuses=lambda i: "decode_error" if i in (3, 20) else "ok",
    )


def relabeled(source: Config, out: Path, **changes: object) -> pd.DataFrame:
    config = parse_config(resolved(source) | {"run": str(out)} | changes)
    relabel_run(source.run.path, config=config, options=StorageOptions(), progress=SilentProgress())
    return table(out)


def table(folder: Path | str) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "predictions")


def test_same_config_gives_the_same_rows_within_float16(source, tmp_path):
    before, after = table(source.run.path), relabeled(source, tmp_path / "out")
    assert list(after.columns) == list(before.columns)
    for column in DECIDED:
        assert after[column].map(str).tolist() == before[column].map(str).tolist()
    for column in FLOATS:
        one, two = (np.concatenate([np.atleast_1d(v) for v in t[column].dropna()]) for t in (before, after))
        assert np.allclose(one, two, atol=5e-3)
    same = [c for c in before.columns if c.endswith(("_logits", "_embedding"))]
    for column in same:
        assert all(np.array_equal(x, y) for x, y in zip(before[column].dropna(), after[column].dropna(), strict=True))


def test_failed_clips_keep_their_failure_and_every_clip_its_row(source, tmp_path):
    after = relabeled(source, tmp_path / "out")
    assert after["clip_id"].tolist() == table(source.run.path)["clip_id"].tolist()
    failed = after[after["status"] != "ok"]
    assert failed["status"].tolist() == ["decode_error"] * 2
    assert failed["label"].isna().all()
    store = open_store(str(tmp_path / "out"), options=StorageOptions())
    assert verify_run(store, require_plan(store)).ok


def test_provenance_points_at_the_source(source, tmp_path):
    relabeled(source, tmp_path / "out")
    record = read_run_record(open_store(str(tmp_path / "out"), options=StorageOptions()))
    origin = record.provenance["relabeled_from"]
    assert origin["run"] == source.run.path
    assert origin["fingerprint"] == require_plan(open_store(source.run.path, options=StorageOptions())).fingerprint


def test_fewer_labels_fewer_members_and_other_weights(source, tmp_path):
    tree = resolved(source)
    after = relabeled(
        source,
        tmp_path / "out",
        label_set=["swim", "bike"],
        members=tree["members"][:2],
        ensemble={"rule": "log_pool", "weights": {"a": 2.0, "b": 1.0}, "top_k": 2},
    )
    assert set(after["label"].dropna()) == {"swim", "bike"}
    assert "c_label" not in after.columns
    before = table(source.run.path)
    for i in after.index[after["status"] == "ok"]:
        a, b = before["a_logits"][i].astype(float), before["b_logits"][i].astype(float)
        pa_, pb = np.exp([a[2], a[0]]), np.exp([b[1], b[3]])
        log = (2 * np.log(pa_ / pa_.sum()) + np.log(pb / pb.sum())) / 3
        expected = np.exp(log) / np.exp(log).sum()
        assert after["score"][i] == pytest.approx(expected.max(), abs=1e-5)
        assert after["label"][i] == ["swim", "bike"][expected.argmax()]


def test_threshold_gives_none_of_these(source, tmp_path):
    after = relabeled(source, tmp_path / "out", ensemble={"none_below": 0.9, "none_label": "other"})
    ok = after[after["status"] == "ok"]
    low = ok["score"] < 0.9
    assert 0 < low.sum() < len(ok)
    assert ((ok["label"] == "other") == low).all()
    assert ((ok["label_id"] == -1) == low).all()


def test_a_mapping_file_leads_to_another_taxonomy(source, tmp_path):
    (tmp_path / "map.yaml").write_text(
        "rest: unmapped\nmap: {bike: sport, swim: sport, guitar: music, yoga: unmapped}\n"
    )
    tree = resolved(source)
    members = [m | {"mapping": str(tmp_path / "map.yaml")} for m in tree["members"]]
    after = relabeled(source, tmp_path / "out", label_set=["music", "sport"], members=members)
    before = table(source.run.path)
    sure = before["label"].isin(["bike", "guitar", "swim"]) & (before["score"] > 0.9)
    expected = before["label"].map({"bike": "sport", "swim": "sport", "guitar": "music"})
    assert sure.sum() > 5
    assert (after["label"][sure] == expected[sure]).all()


@pytest.mark.parametrize(
    "rule", ["dawid_skene", "one_coin_dawid_skene", pytest.param("mace", marks=pytest.mark.slow), "glad"]
)
def test_whole_table_rules_label_as_crowd_kit_does(source, tmp_path, rule):
    aggregation = pytest.importorskip("crowdkit.aggregation")
    names = {"dawid_skene": "DawidSkene", "one_coin_dawid_skene": "OneCoinDawidSkene", "mace": "MACE", "glad": "GLAD"}
    after = relabeled(source, tmp_path / "out", ensemble={"rule": rule, "top_k": 4})
    ok = after[after["status"] == "ok"]
    votes = pd.concat(
        pd.DataFrame({"task": ok["clip_id"], "worker": m, "label": ok[f"{m}_label"].map(LABELS.index)}) for m in "abc"
    ).sort_values(["task", "worker"], kind="stable")
    expected = getattr(aggregation, names[rule])().fit_predict_proba(votes)
    for clip_id, score, label_id in zip(ok["clip_id"], ok["score"], ok["label_id"], strict=True):
        row = expected.loc[clip_id]
        assert score == pytest.approx(row.max(), abs=2e-3)
        assert row[label_id] == pytest.approx(row.max(), abs=2e-3)


def test_interrupted_relabeling_goes_on_and_a_finished_one_does_nothing(source, tmp_path):
    first = relabeled(source, tmp_path / "out")
    unit = tmp_path / "out" / "predictions" / "unit-000001.parquet"
    unit.unlink()
    kept = (tmp_path / "out" / "predictions" / "unit-000000.parquet").read_bytes()
    assert relabeled(source, tmp_path / "out").astype(str).equals(first.astype(str))
    assert (tmp_path / "out" / "predictions" / "unit-000000.parquet").read_bytes() == kept
    config = parse_config(resolved(source) | {"run": str(tmp_path / "out")})
    again = relabel_run(source.run.path, config=config, options=StorageOptions(), progress=SilentProgress())
    assert again.labeled_now == 0


def test_another_config_on_the_same_folder_is_refused(source, tmp_path):
    relabeled(source, tmp_path / "out")
    with pytest.raises(RunMismatchError, match=r"ensemble\.rule"):
        relabeled(source, tmp_path / "out", ensemble={"rule": "majority"})


def test_the_run_itself_is_no_place_for_new_labels(source):
    with pytest.raises(ConfigError, match="folder of their own"):
        relabeled(source, Path(source.run.path))


def changed_member(source: Config, **changes: object) -> list[dict[str, object]]:
    first, *others = resolved(source)["members"]
    return [first | changes, *others]


def test_evidence_of_another_model_is_refused(source, tmp_path):
    with pytest.raises(ConfigError, match=r"members.a.checkpoint is 'other'.*give the member a new name"):
        relabeled(source, tmp_path / "out", members=changed_member(source, checkpoint="other"))


def test_evidence_that_was_not_kept_is_named_with_the_remedy(tmp_path):
    members = (RandomMember("z", embedding_dim=None),)
    run = write_evidence_run(
        tmp_path / "source",
        num_clips=4,
        unit_clips=4,
        labels=LABELS,
        members=members,
        evidence=random_evidence(members, labels=LABELS),
    )
    with pytest.raises(ConfigError, match=r"members.z: .* keeps no embedding of it, and its label texts are new"):
        relabeled(run, tmp_path / "out", label_set=["other", "words"])


def test_logits_that_were_not_kept_are_named_with_the_remedy(source, tmp_path):
    kept = resolved(source)["output"] | {"member_logits": False}
    relabeled(source, tmp_path / "without", output=kept)
    config = parse_config(resolved(source) | {"run": str(tmp_path / "out"), "ensemble": {"rule": "log_pool"}})
    with pytest.raises(ConfigError, match=r"members\.a: .*keeps no logits of it.*output\.member_logits: true"):
        relabel_run(str(tmp_path / "without"), config=config, options=StorageOptions(), progress=SilentProgress())
    with pytest.raises(ConfigError, match=r"keeps no logits of a; run with output\.member_logits: true"):
        calibrate_run(
            str(tmp_path / "without"), truth_path="truth.csv", out=str(tmp_path / "c"), options=StorageOptions()
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ({"label_weights": {"a": {"bikes": 2.0}}}, "label_weights.a: 'bikes' is no label of inline"),
        ({"label_weights": {m: {"bike": 0.0} for m in "abc"}}, "weights of all members for 'bike' are 0"),
        ({"none_label": "bike"}, "none_label 'bike' is a label of the label set"),
        ({"calibration": "none.json"}, "Cannot read the calibration none.json.*vidcls calibrate RUN"),
    ],
)
def test_ensembles_that_cannot_be_are_refused_before_any_work(source, tmp_path, ensemble, message):
    with pytest.raises(ConfigError, match=message):
        relabeled(source, tmp_path / "out", ensemble=ensemble)
    assert not (tmp_path / "out").exists()


def test_retry_of_new_labels_sends_to_the_run_they_came_from(source, tmp_path):
    before = relabeled(source, tmp_path / "out")
    with pytest.raises(ConfigError, match=rf"vidcls retry {source.run.path}` first, then `vidcls relabel`"):
        retry_failed(
            str(tmp_path / "out"),
            statuses=["decode_error"],
            options=StorageOptions(),
            overrides=[],
            progress=SilentProgress(),
        )
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert table(tmp_path / "out").astype(str).equals(before.astype(str))


def test_unfinished_source_is_refused(source, tmp_path):
    success = Path(source.run.path) / "_SUCCESS"
    data = success.read_bytes()
    success.unlink()
    try:
        with pytest.raises(IncompleteRunError, match="finish it with `vidcls run`"):
            relabeled(source, tmp_path / "out")
    finally:
        success.write_bytes(data)


def test_a_cascade_can_be_tried_out_over_stored_evidence(source, tmp_path):
    after = relabeled(source, tmp_path / "out", ensemble={"cascade": {"first": ["a"], "margin": 0.9, "audit_share": 0}})
    ok = after[after["status"] == "ok"]
    margins = ok["a_topk_scores"].map(lambda scores: scores[0] - scores[1])
    assert ok["cascade"].tolist() == ["all" if m < 0.9 else "first" for m in margins]
    assert (ok["b_label"].isna() == (ok["cascade"] == "first")).all()
    assert {"first", "all"} == set(ok["cascade"])
