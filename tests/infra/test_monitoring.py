"""Prometheus rules and the Grafana dashboard: parsed, and over metrics and labels that the code registers."""

import ast
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

promql = pytest.importorskip("promql_parser")

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "infra" / "monitoring" / "rules.yaml"
DASHBOARD = REPOSITORY / "infra" / "monitoring" / "dashboard.json"
METRICS = REPOSITORY / "vidcls_batch" / "metrics.py"
Tree = dict[str, Any]
SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
LABELS_BY_RAY = {"WorkerId", "NodeAddress", "SessionName", "JobId", "le"}
# Of Ray Data's own, as far as the dashboard shows them; tests/pipeline/test_metrics_scrape.py sees them on a live port.
BY_RAY_DATA = {"ray_data_num_external_inqueue_blocks": {"operator", "dataset"}}
DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")


def registered() -> dict[str, set[str]]:
    """Series that the code makes -> their labels, by the calls in vidcls_batch/metrics.py."""
    if not METRICS.exists():
        pytest.skip("this version registers no metrics")
    found: dict[str, set[str]] = {}
    for call in ast.walk(ast.parse(METRICS.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in SUFFIXES:
            keys = [k.value for k in call.keywords if k.arg == "tag_keys"]
            keys += call.args[2:3] if call.func.id != "Histogram" else []
            labels = {e.value for key in keys for e in key.elts}
            for suffix in SUFFIXES[call.func.id]:
                found[f"ray_{call.args[0].value}{suffix}"] = labels
    return found | BY_RAY_DATA


def rule_problems(tree: Tree, series: dict[str, set[str]]) -> list[str]:
    """What Prometheus or a reader would refuse in a rules file."""
    found: list[str] = []
    if set(tree) != {"groups"}:
        found.append(f"keys {sorted(tree)}")
    names = [g.get("name") for g in tree["groups"]]
    if len(set(names)) != len(names):
        found.append("a group's name twice")
    recorded = {r["record"]: set() for g in tree["groups"] for r in g["rules"] if "record" in r}
    for group in tree["groups"]:
        found += [f"{group['name']}: unknown key {k}" for k in set(group) - {"name", "interval", "rules", "limit"}]
        for rule in group["rules"]:
            name = rule.get("alert") or rule.get("record") or "?"
            allowed = {"alert": {"for", "labels", "annotations"}, "record": {"labels"}}
            kind = "alert" if "alert" in rule else "record"
            if ("alert" in rule) == ("record" in rule):
                found.append(f"{name}: one of alert and record")
            found += [f"{name}: unknown key {k}" for k in set(rule) - {"alert", "record", "expr", *allowed[kind]}]
            if "for" in rule and not DURATION.fullmatch(str(rule["for"])):
                found.append(f"{name}: for is no duration")
            if kind == "record" and not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name):
                found.append(f"{name}: no name of a series")
            if kind == "alert" and not {"summary", "runbook_url"} <= set(rule.get("annotations", {})):
                found.append(f"{name}: needs a summary and a runbook_url")
            found += [f"{name}: {p}" for p in expression_problems(rule.get("expr", ""), series | recorded)]
    return found


def expression_problems(text: str, series: dict[str, set[str]]) -> Iterator[str]:
    text = text.replace("$__rate_interval", "5m")
    try:
        promql.parse(text)
    except ValueError as error:
        yield f"no PromQL: {error}"
        return
    used = re.findall(r"\b(?:ray_vidcls|ray_data|vidcls:)[a-zA-Z0-9_:]*", text)
    if not used:
        yield "looks at no series of ours"
    labels: set[str] = set(LABELS_BY_RAY)
    for name in used:
        if name not in series:
            yield f"{name} is no series that the code makes"
        labels |= series.get(name, set())
        if name.endswith("_total") and not re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", text):
            yield f"{name} is a counter: take its rate or increase"
        if re.search(rf"{name}(\{{[^}}]*\}})?\[\w+\]\)+\s*== 0", text):
            yield f"{name} is not there before it first counts: or vector(0)"
    asked = set(re.findall(r"[{,]\s*([a-zA-Z_]+)\s*(?:=~|!~|!=|=)", text))
    for group in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", text):
        asked |= {name.strip() for name in group.split(",")}
    for name in sorted(asked - labels):
        yield f"{name} is no label of these series"


def dashboard_problems(tree: Tree, series: dict[str, set[str]]) -> list[str]:
    found = [f"lacks {key}" for key in ("uid", "title", "schemaVersion", "panels", "templating") if key not in tree]
    panels = tree.get("panels", [])
    if len({p["id"] for p in panels}) != len(panels):
        found.append("a panel's id twice")
    variables = {v["name"] for v in tree["templating"]["list"]}
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            found.append(f"{panel['title']}: wider than the grid")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (other := taken.setdefault((x, y), panel["title"])) != panel["title"]:
                    found.append(f"{panel['title']} lies over {other}")
        refs = [t["refId"] for t in panel["targets"]]
        if len(set(refs)) != len(refs):
            found.append(f"{panel['title']}: a refId twice")
        for target in panel["targets"]:
            for name in re.findall(r"\$\{(\w+)\}", target["datasource"]["uid"]):
                if name not in variables:
                    found.append(f"{panel['title']}: no variable {name}")
            found += [f"{panel['title']}: {p}" for p in expression_problems(target["expr"], series)]
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                if not re.search(rf"by \([^)]*\b{label}\b", target["expr"]):
                    found.append(f"{panel['title']}: the legend names {label}, the expression drops it")
    return found


def rules() -> Tree:
    return yaml.safe_load(RULES.read_text())


def dashboard() -> Tree:
    return json.loads(DASHBOARD.read_text())


def recorded() -> dict[str, set[str]]:
    return {r["record"]: {"status", "stage"} for g in rules()["groups"] for r in g["rules"] if "record" in r}


def test_rules_are_over_what_the_code_counts():
    assert rule_problems(rules(), registered()) == []


def test_dashboard_shows_what_the_code_counts_and_every_metric_has_a_place():
    series = registered()
    assert dashboard_problems(dashboard(), series | recorded()) == []
    shown = DASHBOARD.read_text() + RULES.read_text()
    assert {name for name in series if name not in shown} == set()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ray_vidcls_clips_total[5m]", "ray_vidcls_clip_total[5m]", "is no series that the code makes"),
        (
            "sum by (status) (rate(ray_vidcls_clips_total[5m]))",
            "sum by (status) (rate(ray_vidcls_clips_total[5m])",
            "no PromQL",
        ),
        ("sum by (status)", "sum by (state)", "state is no label of these series"),
        (
            "sum(increase(ray_vidcls_lost_blocks_total[30m])) > 10",
            "sum(ray_vidcls_lost_blocks_total) > 10",
            "take its rate",
        ),
        (
            "(sum(rate(ray_vidcls_clips_total[15m])) or vector(0)) == 0",
            "sum(rate(ray_vidcls_clips_total[15m])) == 0",
            "is not there before it first counts",
        ),
        ("for: 30m", "for: half an hour", "for is no duration"),
        ("annotations:", "annotation:", "unknown key annotation"),
        ("runbook_url: docs/runbook.md#no-progress", "runbook: x", "needs a summary and a runbook_url"),
        ("name: vidcls-alerts", "name: vidcls-rates", "a group's name twice"),
    ],
)
def test_a_planted_mistake_in_the_rules_is_caught(old, new, message):
    text = RULES.read_text()
    assert old in text
    found = rule_problems(yaml.safe_load(text.replace(old, new, 1)), registered())
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("panels", 1, "id"), 1, "id twice"),
        (("panels", 1, "gridPos", "x"), 20, "wider than the grid"),
        (("panels", 1, "gridPos", "x"), 4, "lies over"),
        (("panels", 0, "targets", 0, "legendFormat"), "{{stage}}", "the legend names stage"),
        (("panels", 0, "targets", 0, "datasource"), {"uid": "${source}"}, "no variable source"),
        (("panels", 0, "targets", 0, "expr"), "sum(rate(ray_vidcls_clip_total[5m]))", "is no series"),
    ],
)
def test_a_planted_mistake_in_the_dashboard_is_caught(path, value, message):
    tree = copy.deepcopy(dashboard())
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = dashboard_problems(tree, registered() | recorded())
    assert any(message in problem for problem in found), found


def test_every_alert_has_its_place_in_the_runbook():
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in (REPOSITORY / "docs" / "runbook.md").read_text().splitlines()
        if line.startswith("#")
    }
    for group in rules()["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
                assert path == "docs/runbook.md"
                assert anchor in headings, anchor
