"""`vidcls calibrate`: from a run's evidence and some true labels to a calibration file, measured on held-out folds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

import vidcls_batch
from vidcls_batch.dataset.unit_files import read_predictions
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import LabelSet, load_label_set
from vidcls_batch.labeling.calibration import Calibration
from vidcls_batch.labeling.calibration_file import CalibrationFile, save_calibration
from vidcls_batch.labeling.calibration_fit import stratified_folds
from vidcls_batch.labeling.calibration_learn import (
    ENSEMBLE,
    FEW_SHOT,
    METHODS,
    LabeledEvidence,
    Truth,
    held_out,
    learn_calibration,
    try_few_shot,
)
from vidcls_batch.labeling.calibration_metrics import Quality, quality, reliability
from vidcls_batch.labeling.ensemble import Mask, Scores
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence
from vidcls_batch.labeling.reliability_chart import Panel, write_reliability_chart
from vidcls_batch.labeling_setup import set_up_labeling
from vidcls_batch.models.base import MemberDescription
from vidcls_batch.relabel_source import SourceRun, open_source, scored_rows, stored_evidence
from vidcls_batch.storage import StorageOptions, open_store
from vidcls_batch.truth import read_truth, refuse_unknown_clips


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What calibrating did, on clips that were held out of learning it."""

    out: str
    num_clips: int
    folds: int
    methods: Mapping[str, str]  # by member, and of the ensemble
    before: Mapping[str, Quality]
    after: Mapping[str, Quality]
    few_shot: Mapping[str, Mapping[str, Quality]]  # zero-shot member -> way -> what it gave

    def __str__(self) -> str:
        lines = [f"{self.num_clips} clips with known labels, {self.folds} folds; held-out figures, before → after:"]
        for name, before in self.before.items():
            after = self.after[name]
            lines.append(
                f"  {name:<12} {self.methods[name]:<11} accuracy {before.accuracy:.3f} → {after.accuracy:.3f}  "
                f"ECE {before.ece:.3f} → {after.ece:.3f}  Brier {before.brier:.3f} → {after.brier:.3f}  "
                f"NLL {before.nll:.3f} → {after.nll:.3f}"
            )
        for name, ways in self.few_shot.items():
            tried = ", ".join(f"{way} {q.accuracy:.3f} ({q.nll:.3f})" for way, q in ways.items())
            lines.append(f"  few-shot {name}: accuracy (NLL) of {tried}")
        return "\n".join([*lines, f"Written to {self.out}; use it as ensemble.calibration in run and relabel"])


def calibrate_run(
    run_uri: str,
    *,
    truth_path: str,
    out: str,
    options: StorageOptions,
    method: str = "temperature",
    few_shot: bool = False,
    stacking: bool = False,
    folds: int = 5,
    column: str = "label",
    plot: str | None = None,
) -> CalibrationReport:
    """Learn a calibration from a finished run with stored logits, and write it to `out`.

    Raises ConfigError on a truth file that does not fit the run, on too few labels, on evidence that was not kept.
    """
    if method not in METHODS:
        raise ConfigError(f"--method {method!r} is not known; choose from {', '.join(METHODS)}")
    if folds < 2:
        raise ConfigError(f"--folds is {folds}; at least 2, or nothing is held out")
    source = open_source(open_store(run_uri, options=options))
    label_set = load_label_set(source.config.label_set)
    settings, described = _settings(source, label_set=label_set, stacking=stacking)
    evidence = _collect(source, read_truth(truth_path, label_set=label_set, column=column), path=truth_path)
    _refuse_too_few(evidence.truth, method=method, folds=folds, num_labels=len(label_set.labels))
    names = [m.name for m in described]
    place = stratified_folds(evidence.truth, folds=folds)
    tried = {
        m.name: try_few_shot(i, evidence, place, settings=settings)
        for i, m in enumerate(described)
        if few_shot and m.zero_shot
    }
    chosen = {name: min(ways, key=lambda way: ways[way].nll) for name, ways in tried.items()}
    methods = [*(FEW_SHOT[chosen[n]] if n in chosen else METHODS[method] for n in names), METHODS[method]]
    before = held_out(evidence, place, names=names, settings=settings, methods=None)
    after = held_out(evidence, place, names=names, settings=settings, methods=methods)
    report = CalibrationReport(
        out=out,
        num_clips=len(evidence.truth),
        folds=folds,
        methods=dict.fromkeys([*names, ENSEMBLE], method) | chosen,
        before={n: quality(s, evidence.truth[k]) for n, (s, k) in before.items()},
        after={n: quality(s, evidence.truth[k]) for n, (s, k) in after.items()},
        few_shot=tried,
    )
    final = learn_calibration(evidence, settings=settings, methods=methods, folds=folds)
    origin = {"run": source.store.uri, "fingerprint": source.plan.fingerprint, "truth": str(truth_path)}
    rests_on = origin | {"label_set_digest": label_set.digest, "rule": settings.rule}
    _save(out, final, names=names, report=report, rests_on=rests_on)
    if plot is not None:
        write_reliability_chart(plot, [_panel(n, before[n], after[n], evidence.truth) for n in before])
    return report


def _settings(
    source: SourceRun, *, label_set: LabelSet, stacking: bool
) -> tuple[LabelingSettings, list[MemberDescription]]:
    """How the run labeled, without a calibration it may have had."""
    config = source.config
    plain = config.ensemble.model_copy(update={"calibration": None})
    described = [source.description(m) for m in config.members]
    lacking = [m.name for m in described if not source.has(m.name, "logits")]
    if lacking:
        raise ConfigError(f"{source.store.uri} keeps no logits of {lacking[0]}; run with output.member_logits: true")
    setup = set_up_labeling(
        config.model_copy(update={"ensemble": plain}), label_set=label_set, members=described, whole_table=True
    )
    return (replace(setup.settings, rule="stacking") if stacking else setup.settings), described


def _save(
    out: str, final: Calibration, *, names: Sequence[str], report: CalibrationReport, rests_on: Mapping[str, str]
) -> None:
    provenance = {
        "vidcls_batch": vidcls_batch.__version__,
        **rests_on,
        "num_clips": report.num_clips,
        "folds": report.folds,
        "methods": dict(report.methods),
        "held_out_before": {n: asdict(q) for n, q in report.before.items()},
        "held_out_after": {n: asdict(q) for n, q in report.after.items()},
    }
    members = {n: c for n, c in zip(names, final.members, strict=True) if c is not None}
    stacked = () if final.stacking is None else tuple(names)
    save_calibration(
        out, CalibrationFile(members, final.ensemble, final.stacking, stacked, provenance, incomplete=final.incomplete)
    )


def _panel(name: str, before: tuple[Scores, Mask], after: tuple[Scores, Mask], truth: Truth) -> Panel:
    sides = [(reliability(s, truth[k]), quality(s, truth[k])) for s, k in (before, after)]
    return name, sides[0], sides[1]


def _collect(source: SourceRun, truth: Mapping[str, int], *, path: str) -> LabeledEvidence:
    """The evidence of the clips in `truth` that the run labeled."""
    parts: list[list[MemberEvidence]] = []
    labels: list[NDArray[np.int64]] = []
    known: set[str] = set()
    names = [m.name for m in source.config.members]
    kinds = [frozenset(k for k in ("logits", "embedding") if source.has(n, k)) for n in names]
    columns = [f"{n}_{kind}" for n, found in zip(names, kinds, strict=True) for kind in sorted(found)]
    for unit in range(source.plan.num_units):
        rows = read_predictions(source.store, unit, columns=["clip_id", "status", "error_code", *columns])
        ids = rows["clip_id"].to_pylist()
        known.update(i for i in ids if i in truth)
        positions = [i for i in scored_rows(rows).tolist() if ids[i] in truth]
        if positions:
            some = rows.take(positions)
            parts.append([stored_evidence(some, n, kinds=k) for n, k in zip(names, kinds, strict=True)])
            labels.append(np.array([truth[ids[i]] for i in positions]))
    refuse_unknown_clips(dict(truth), known, path=path, run=source.store.uri)
    if not parts:
        raise ConfigError(f"None of the clips in {path} was labeled in {source.store.uri}; nothing to learn from")
    members = tuple(_joined([part[m] for part in parts]) for m in range(len(names)))
    return LabeledEvidence(members, np.concatenate(labels))


def _joined(parts: Sequence[MemberEvidence]) -> MemberEvidence:
    embedding = None if parts[0].embedding is None else np.concatenate([p.embedding for p in parts])
    present = np.concatenate([np.ones(len(p.logits), np.bool_) if p.present is None else p.present for p in parts])
    return MemberEvidence(np.concatenate([p.logits for p in parts]), embedding, None, present)


def _refuse_too_few(truth: Truth, *, method: str, folds: int, num_labels: int) -> None:
    needed = max(METHODS[method].needs(num_labels), 2 * folds)
    if len(truth) < needed:
        raise ConfigError(
            f"{len(truth)} labeled clips are too few for --method {method} over {num_labels} labels: it needs at least "
            f"{needed}. Label more clips, or use --method temperature"
        )
    if len(np.unique(truth)) < 2:
        raise ConfigError("All labeled clips have the same label; scores cannot be calibrated from one label")
