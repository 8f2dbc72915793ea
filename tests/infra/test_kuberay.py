"""The KubeRay files against the operator's schemas and rules, our own promises, and planted mistakes."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

pytest.importorskip("jsonschema")
from kuberay_rules import problems

from vidcls_batch.config import parse_config

FOLDER = Path(__file__).parents[2] / "infra" / "kuberay"
Tree = dict[str, Any]


def load(name: str) -> Tree:
    return yaml.safe_load((FOLDER / name).read_text())


def common() -> list[Tree]:
    return list(yaml.safe_load_all((FOLDER / "common.yaml").read_text()))


def cluster_spec(resource: Tree) -> Tree:
    return resource["spec"].get("rayClusterSpec", resource["spec"])


def pods(resource: Tree) -> Iterator[tuple[str, Tree]]:
    spec = cluster_spec(resource)
    yield "head", spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]


FILES = ("rayjob.yaml", "raycluster.yaml")


@pytest.mark.parametrize("name", FILES)
def test_the_operator_would_accept_it(name):
    assert problems(load(name)) == []


def _set(path: str, value: Any) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        *above, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for key in above:
            tree = tree[key]
        tree[last] = value

    return change


def _drop(path: str) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        *above, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for key in above:
            tree = tree[key]
        del tree[last]

    return change


HEAD = "spec/rayClusterSpec/headGroupSpec"
GPU = "spec/rayClusterSpec/workerGroupSpecs/1"
MISTAKES: dict[str, Callable[[Tree], None]] = {
    "additional properties .*backofLimit|backofLimit.* unexpected": _set("spec/backofLimit", 1),
    "is not of type 'integer'": _set(f"{GPU}/maxReplicas", "eight"),
    "maxReplica' was unexpected": _set(f"{GPU}/maxReplica", 8),
    "unexpected.*|livenessProb": _set(f"{HEAD}/template/spec/containers/0/livenessProb", {}),
    "'name' is a required property": _drop(f"{HEAD}/template/spec/containers/0/name"),
    "'headGroupSpec' is a required property": _drop(HEAD),
    "submissionMode": _set("spec/submissionMode", "K8sjobMode"),
    "ttlSecondsAfterFinished: needs": _set("spec/shutdownAfterJobFinishes", False),
    "minReplicas 9 greater than maxReplicas 8": _set(f"{GPU}/minReplicas", 9),
    "gpu: restartPolicy must be Never": _set(f"{GPU}/template/spec/restartPolicy", "Always"),
    "head: resources both": _set(f"{HEAD}/resources", {"CPU": "1"}),
    "both autoscalerOptions.version and RAY_enable": lambda tree: tree["spec"]["rayClusterSpec"]["headGroupSpec"][
        "template"
    ]["spec"]["containers"][0]["env"].append({"name": "RAY_enable_autoscaler_v2", "value": "1"}),
    "token needs rayVersion": _set("spec/rayClusterSpec/rayVersion", "2.51.0"),
    "idleTimeoutSeconds must not be negative and needs autoscaler v2": _set(
        "spec/rayClusterSpec/autoscalerOptions/version", "v1"
    ),
    "networkPolicy: needs a feature gate": _set("spec/rayClusterSpec/networkPolicy", {"mode": "DenyAll"}),
    "more than 47": _set("metadata/name", "v" * 48),
    "no DNS-1035 label": _set("metadata/name", "1st-run"),
    "backoffLimit: negative": _set("spec/backoffLimit", -1),
    "activeDeadlineSeconds: must be positive": _set("spec/activeDeadlineSeconds", 0),
    "without gcsFaultToleranceOptions": lambda tree: tree["spec"]["rayClusterSpec"]["headGroupSpec"]["template"][
        "spec"
    ]["containers"][0]["env"].append({"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}),
    "not in the cluster of a RayJob": _set("spec/rayClusterSpec/upgradeStrategy", {"type": "Recreate"}),
    "one of rayClusterSpec and clusterSelector": _drop("spec/rayClusterSpec"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_planted_mistake_is_caught(message):
    job = copy.deepcopy(load("rayjob.yaml"))
    MISTAKES[message](job)
    assert any(re.search(message, found) for found in problems(job)), problems(job)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("belong into gcsFaultToleranceOptions", _set("spec/headGroupSpec/rayStartParams/redis-password", "x")),
        ("rocksdb needs a feature gate", _set("spec/gcsFaultToleranceOptions/backend", "rocksdb")),
        ("only with rocksdb", _set("spec/gcsFaultToleranceOptions/storage", {"size": "1Gi"})),
        ("both set", _set("metadata/annotations", {"ray.io/ft-enabled": "true"})),
    ],
)
def test_a_planted_mistake_about_fault_tolerance_is_caught(message, change):
    cluster = copy.deepcopy(load("raycluster.yaml"))
    change(cluster)
    assert any(message in found for found in problems(cluster)), problems(cluster)


@pytest.mark.parametrize("name", FILES)
def test_every_pod_is_unprivileged_bounded_probed_and_writes_to_volumes_only(name):
    for group, pod in pods(load(name)):
        assert pod["securityContext"]["runAsNonRoot"], group
        assert pod["serviceAccountName"] == "vidcls"
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"], group
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert {"name": "metrics", "containerPort": 8080} in container["ports"]
        assert re.fullmatch(r"ghcr\.io/your-org/vidcls-batch:\d+\.\d+\.\d+-cuda", container["image"])


@pytest.mark.parametrize("name", FILES)
def test_the_head_is_on_demand_and_all_workers_are_spot_and_start_at_none(name):
    resource = load(name)
    spec = cluster_spec(resource)
    assert spec["rayVersion"] == ray.__version__
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group, pod in pods(resource):
        assert pod["nodeSelector"]["vidcls/capacity"] == ("on-demand" if group == "head" else "spot")
        if group != "head":
            assert any(t["key"] == "vidcls/spot" for t in pod["tolerations"])
            assert pod["terminationGracePeriodSeconds"] <= 120  # of notice that a spot machine gives
    assert {g["groupName"]: g["minReplicas"] for g in spec["workerGroupSpecs"]} == {"decode": 0, "gpu": 0}


def test_only_the_cluster_that_stays_keeps_its_tables():
    assert "gcsFaultToleranceOptions" in load("raycluster.yaml")["spec"]
    assert "gcsFaultToleranceOptions" not in load("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert load("rayjob.yaml")["spec"]["backoffLimit"] > 0


def test_what_the_files_name_is_there():
    kinds = {(r["kind"], r["metadata"]["name"]): r for r in common()}
    assert ("ServiceAccount", "vidcls") in kinds
    address = load("raycluster.yaml")["spec"]["gcsFaultToleranceOptions"]["redisAddress"]
    service = kinds["Service", "vidcls-redis"]
    assert address == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    config = parse_config(yaml.safe_load(kinds["ConfigMap", "vidcls-config"]["data"]["config.yaml"]))
    assert {m.name for m in config.members} == {"videomae", "xclip"}
    (job,) = [load("rayjob.yaml")]
    mounted = {m["mountPath"] for m in dict(pods(job))["head"]["containers"][0]["volumeMounts"]}
    assert str(Path(job["spec"]["entrypoint"].split()[-1]).parent) in mounted


@pytest.mark.parametrize("mistake", [None, "replica", "selector"])
def test_core_objects_are_what_kubernetes_knows(mistake):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    objects = common()
    (stateful,) = [r for r in objects if r["kind"] == "StatefulSet"]
    if mistake == "replica":
        stateful["spec"]["replica"] = stateful["spec"].pop("replicas")
    if mistake == "selector":
        del stateful["spec"]["selector"]
    refused = []
    for item in objects:
        try:
            kubernetes_validate.validate(item, "1.33", strict=True)
        except kubernetes_validate.ValidationError as error:
            refused.append((item["kind"], error.message))
    assert [kind for kind, _ in refused] == ([] if mistake is None else ["StatefulSet"]), refused


def test_no_secret_is_written_down():
    for path in FOLDER.glob("*.yaml"):
        assert not re.search(r"(?i)(password|secret|token)\S*: *[\"']?[A-Za-z0-9+/]{12,}", path.read_text()), path
