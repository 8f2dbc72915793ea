"""`vidcls calibrate` over run folders made of numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.evidence_run import Evidence, RandomMember, write_evidence_run
from vidcls_batch.calibrate import CalibrationReport, calibrate_run
from vidcls_batch.config import Config, parse_config, resolved
from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.labeler import MemberEvidence
from vidcls_batch.progress import SilentProgress
from vidcls_batch.relabel import relabel_run
from vidcls_batch.storage import StorageOptions

LABELS = ("bike", "guitar", "swim")
MEMBERS = (
    RandomMember("looks", labels=LABELS),
    RandomMember("hears", labels=LABELS),
    RandomMember("zs", embedding_dim=8),
)
NUM_CLIPS = 600
TRUTH = np.random.default_rng(0).integers(0, 3, NUM_CLIPS)


def over_confident(unit: int, size: int) -> list[MemberEvidence]:
    """Members whose logits are three times too large; `hears` has no score of every seventh clip."""
    rng = np.random.default_rng([1, unit])
    truth = TRUTH[unit * 200 : unit * 200 + size]
    logits = rng.normal(size=(3, size, 3)) * 1.5
    logits[:, np.arange(size), truth] += np.array([[1.5], [1.0], [0.3]])
    present = (unit * 200 + np.arange(size)) % 7 != 0
    embedding = rng.normal(size=(size, 8)) * 0.4 + 2 * np.eye(3, 8)[truth]
    return [
        MemberEvidence(logits[0] * 3),
        MemberEvidence(logits[1] * 3, present=present),
        MemberEvidence(logits[2] * 3, embedding=embedding),
    ]


def make_run(folder: Path, evidence: Evidence = over_confident) -> Config:
    return write_evidence_run(
        folder, num_clips=NUM_CLIPS, unit_clips=200, labels=LABELS, members=MEMBERS, evidence=evidence
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_run(tmp_path_factory.mktemp("run"))


def write_truth(folder: Path, clips: range = range(300)) -> Path:
    ids = [f"clip-{i:08d}" for i in clips]
    pd.DataFrame({"clip_id": ids, "label": [LABELS[TRUTH[i]] for i in clips]}).to_csv(folder / "truth.csv", index=False)
    return folder / "truth.csv"


def calibrated(run: Config, folder: Path, truth: Path, **changes: object) -> CalibrationReport:
    return calibrate_run(
        run.run.path, truth_path=str(truth), out=str(folder / "c.json"), options=StorageOptions(), **changes
    )


def relabeled(run: Config, folder: Path, **ensemble: object) -> pd.DataFrame:
    tree = resolved(run) | {"run": str(folder / "out")}
    config = parse_config(tree | {"ensemble": {"calibration": str(folder / "c.json"), **ensemble}})
    relabel_run(run.run.path, config=config, options=StorageOptions(), progress=SilentProgress())
    return pd.read_parquet(folder / "out" / "predictions")


def error_of(table: pd.DataFrame, clips: slice) -> float:
    """Distance of a member's mean score from its accuracy over clips that were not learned from."""
    labels = np.array(LABELS)[TRUTH[clips]]
    return abs(float(table["looks_score"][clips].mean()) - float((table["looks_label"][clips] == labels).mean()))


def test_scores_become_honest_on_clips_that_were_not_learned_from(run, tmp_path):
    before = pd.read_parquet(Path(run.run.path) / "predictions")
    report = calibrated(run, tmp_path, write_truth(tmp_path), plot=str(tmp_path / "c.png"))
    assert report.num_clips == 300
    assert report.after["looks"].ece < report.before["looks"].ece / 2
    assert report.after["ensemble"].nll < report.before["ensemble"].nll
    assert "held-out figures" in str(report)
    after = relabeled(run, tmp_path)
    assert error_of(after, slice(300, 600)) < 0.06 < error_of(before, slice(300, 600))
    image = Image.open(tmp_path / "c.png")
    assert image.size[1] > image.size[0]  # four rows of two
    assert len(set(image.convert("RGB").getdata())) > 3


def test_stacking_learned_here_is_what_relabel_applies(run, tmp_path):
    report = calibrated(run, tmp_path, write_truth(tmp_path), stacking=True)
    after = relabeled(run, tmp_path, rule="stacking")
    labels = np.array(LABELS)[TRUTH[300:]]
    accuracy = float((after["label"][300:] == labels).mean())
    assert accuracy == pytest.approx(report.after["ensemble"].accuracy, abs=0.07)
    with pytest.raises(ConfigError, match=r"learned with ensemble\.rule stacking"):
        relabeled(run, tmp_path, rule="log_pool")


def test_few_clips_show_a_zero_shot_member_what_its_texts_do_not(run, tmp_path):
    report = calibrated(run, tmp_path, write_truth(tmp_path, range(60)), few_shot=True)
    assert set(report.few_shot["zs"]) == {"temperature", "prior", "vector", "cache", "probe"}
    assert report.methods["zs"] in ("cache", "probe")
    assert report.after["zs"].accuracy > report.before["zs"].accuracy + 0.2
    after = relabeled(run, tmp_path)
    labels = np.array(LABELS)[TRUTH[60:]]
    assert float((after["zs_label"][60:] == labels).mean()) > 0.9


@pytest.mark.parametrize("method", ["vector", "isotonic"])
def test_other_methods_help_as_well(run, tmp_path, method):
    report = calibrated(run, tmp_path, write_truth(tmp_path), method=method)
    assert report.after["looks"].ece < report.before["looks"].ece


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("clip_id,label\nclip-00000000,bike\nnope,bike\n", "1 of its 2 clips are not in .*'nope'"),
        ("clip_id,label\nclip-00000000,bikes\n", "'bikes' is no label of inline"),
        ("clip_id,label\nclip-00000000,bike\nclip-00000000,swim\n", "gives clip 'clip-00000000' two labels"),
        ("clip,label\nclip-00000000,bike\n", "no column 'clip_id'; it has clip, label"),
        ("clip_id,label\nclip-00000000,bike\nclip-00000001,swim\n", "2 labeled clips are too few for --method"),
        ("", "Cannot read the truth file"),
    ],
)
def test_truth_that_does_not_fit_is_refused(run, tmp_path, rows, message):
    (tmp_path / "truth.csv").write_text(rows)
    with pytest.raises(ConfigError, match=message):
        calibrated(run, tmp_path, tmp_path / "truth.csv")


def test_vector_scaling_wants_more_clips_than_labels(run, tmp_path):
    with pytest.raises(ConfigError, match=r"needs at least 50\. Label more clips, or use --method temperature"):
        calibrated(run, tmp_path, write_truth(tmp_path, range(40)), method="isotonic")


@pytest.mark.parametrize(
    ("changes", "message"), [({"method": "magic"}, "'magic' is not known"), ({"folds": 1}, "at least 2")]
)
def test_options_that_cannot_be_are_refused(run, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        calibrated(run, tmp_path, write_truth(tmp_path), **changes)


def test_calibration_of_other_labels_is_refused(run, tmp_path):
    calibrated(run, tmp_path, write_truth(tmp_path), method="vector")
    tree = resolved(run) | {"run": str(tmp_path / "out"), "label_set": ["bike", "guitar"]}
    tree["members"] = tree["members"][:2]
    config = parse_config(tree | {"ensemble": {"calibration": str(tmp_path / "c.json")}})
    with pytest.raises(ConfigError, match="learned for another label set"):
        relabel_run(run.run.path, config=config, options=StorageOptions(), progress=SilentProgress())
