"""What KubeRay 1.7.0 accepts: its CRD schemas made strict, and the rules of its operator that no schema says.

The schemas are `ray-operator/config/crd/bases` at v1.7.0 (Apache-2.0) without descriptions. The rules follow
`ray-operator/controllers/ray/utils/validation.go`, as far as they are about fields that these files could hold, with
the operator's feature gates at their defaults.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

Tree = dict[str, Any]
SCHEMAS = Path(__file__).parent / "schemas" / "kuberay-1.7.0.json.gz"
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
MAX_NAME = {"RayCluster": 63, "RayJob": 47}
_V2 = "RAY_enable_autoscaler_v2"


def problems(resource: Tree) -> list[str]:
    """Everything that the API server's strict validation or the operator would refuse; empty when it is accepted."""
    found = [
        f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}"
        for e in validator(resource["kind"]).iter_errors(resource)
    ]
    if found:
        return found  # the rules expect the right shapes
    rules = {"RayCluster": _cluster_problems, "RayJob": _job_problems}[resource["kind"]]
    return [*_name_problems(resource), *rules(resource)]


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    """Of one kind; unknown fields are errors."""
    schemas = json.loads(gzip.decompress(SCHEMAS.read_bytes()))
    return jsonschema.Draft202012Validator(_strict(schemas[kind]))


def _strict(node: Any) -> Any:
    """OpenAPI v3 as Kubernetes writes it, as a JSON schema that knows no further fields."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    found = {key: _strict(value) for key, value in node.items() if not key.startswith("x-") and key != "format"}
    if "properties" in node:
        found["properties"] = {name: _strict(value) for name, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    return found


def _name_problems(resource: Tree) -> Iterator[str]:
    name, limit = resource["metadata"]["name"], MAX_NAME[resource["kind"]]
    if len(name) > limit:
        yield f"metadata.name: more than {limit} characters"
    if not DNS_LABEL.fullmatch(name):
        yield f"metadata.name: {name!r} is no DNS-1035 label"


def _job_problems(job: Tree) -> Iterator[str]:
    spec = job["spec"]
    mode = spec.get("submissionMode", "K8sJobMode")
    ttl, shuts_down = spec.get("ttlSecondsAfterFinished", 0), spec.get("shutdownAfterJobFinishes", False)
    if mode not in SUBMISSION_MODES:
        yield f"submissionMode: {mode!r} is none of {SUBMISSION_MODES}"
    if ttl < 0 or (ttl > 0 and not shuts_down):
        yield "ttlSecondsAfterFinished: needs shutdownAfterJobFinishes, and must not be negative"
    if spec.get("suspend") and not shuts_down:
        yield "suspend: needs shutdownAfterJobFinishes"
    if "rayClusterSpec" not in spec and not spec.get("clusterSelector"):
        yield "one of rayClusterSpec and clusterSelector must be set"
    if spec.get("clusterSelector") and spec.get("backoffLimit", 0) > 0:
        yield "backoffLimit: not with clusterSelector"
    if mode == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
        yield "backoffLimit: not with InteractiveMode"
    if mode == "SidecarMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield "submitterPodTemplate, submitterConfig: not with SidecarMode"
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit: negative"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 1) <= 0:
            yield f"{key}: must be positive"
    if "rayClusterSpec" in spec:
        if "upgradeStrategy" in spec["rayClusterSpec"]:
            yield "upgradeStrategy: not in the cluster of a RayJob"
        if (spec["rayClusterSpec"].get("authOptions") or {}).get("enableK8sTokenAuth"):
            yield "authOptions.enableK8sTokenAuth: not in a RayJob"
        yield from _spec_problems(spec["rayClusterSpec"], job["metadata"].get("annotations", {}))


def _cluster_problems(cluster: Tree) -> Iterator[str]:
    return _spec_problems(cluster["spec"], cluster["metadata"].get("annotations", {}))


def _spec_problems(spec: Tree, annotations: Mapping[str, str]) -> Iterator[str]:
    autoscaling = bool(spec.get("enableInTreeAutoscaling"))
    head = spec["headGroupSpec"]
    groups = [("head", head), *((g["groupName"], g) for g in spec.get("workerGroupSpecs", []))]
    for name, group in groups:
        yield from _group_problems(name, group)
    for name, group in groups[1:]:
        low, high = group.get("minReplicas"), group.get("maxReplicas")
        if not autoscaling and (low is None or high is None):
            yield f"{name}: minReplicas and maxReplicas must both be set without autoscaling"
        if min(low or 0, high or 0) < 0:
            yield f"{name}: negative replicas"
        if low is not None and high is not None and low > high:
            yield f"{name}: minReplicas {low} greater than maxReplicas {high}"
        if group.get("suspend"):
            yield f"{name}: suspend needs a feature gate, and no autoscaling"
        if "idleTimeoutSeconds" in group and (group["idleTimeoutSeconds"] < 0 or not _is_v2(spec)):
            yield f"{name}: idleTimeoutSeconds must not be negative and needs autoscaler v2"
        if group.get("priority") and (not _is_v2(spec) or _version(spec) < (2, 56)):
            yield f"{name}: priority needs autoscaler v2 and Ray 2.56"
    yield from _autoscaler_problems(spec, groups)
    yield from _fault_tolerance_problems(spec, annotations)
    auth = spec.get("authOptions") or {}
    if auth.get("mode") == "token" and _version(spec) < (2, 52):
        yield "authOptions.mode: token needs rayVersion 2.52 or later, and set"
    if auth.get("enableK8sTokenAuth") and (auth.get("mode") != "token" or auth.get("secretName")):
        yield "authOptions.enableK8sTokenAuth: needs mode token and no secretName"
    for gated in ("networkPolicy", "tlsOptions", "historyServerOptions"):
        if gated in spec:
            yield f"{gated}: needs a feature gate that is off by default"


def _group_problems(name: str, group: Tree) -> Iterator[str]:
    parameters = group.get("rayStartParams") or {}
    if not group["template"]["spec"].get("containers"):
        yield f"{name}: at least one container"
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(parameters):
        yield f"{name}: resources both in rayStartParams and in resources"
    if "labels" in parameters:
        yield f"{name}: rayStartParams.labels is not supported; use labels"
    for key, value in (group.get("labels") or {}).items():
        if not LABEL_VALUE.fullmatch(str(value)) or len(str(value)) > 63:
            yield f"{name}: label {key} has the value {value!r}"


def _autoscaler_problems(spec: Tree, groups: list[tuple[str, Tree]]) -> Iterator[str]:
    options = spec.get("autoscalerOptions") or {}
    by_variable = _environment(spec["headGroupSpec"]).get(_V2)
    if not spec.get("enableInTreeAutoscaling"):
        if by_variable in ("1", "true"):
            yield f"{_V2} without enableInTreeAutoscaling"
        return
    if options.get("version") and by_variable is not None:
        yield f"both autoscalerOptions.version and {_V2} are set"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds: negative"
    if _is_v2(spec):
        for name, group in groups:
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{name}: restartPolicy must be Never or unset with autoscaler v2"


def _fault_tolerance_problems(spec: Tree, annotations: Mapping[str, str]) -> Iterator[str]:
    options, variables = spec.get("gcsFaultToleranceOptions"), _environment(spec["headGroupSpec"])
    parameters = spec["headGroupSpec"].get("rayStartParams") or {}
    if "redis-username" in parameters or "REDIS_USERNAME" in variables:
        yield "redis username belongs into gcsFaultToleranceOptions"
    if options is None:
        if "RAY_REDIS_ADDRESS" in variables and annotations.get("ray.io/ft-enabled") != "true":
            yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
        return
    if annotations.get("ray.io/ft-enabled"):
        yield "ray.io/ft-enabled and gcsFaultToleranceOptions are both set"
    if annotations.get("ray.io/external-storage-namespace"):
        yield "ray.io/external-storage-namespace with gcsFaultToleranceOptions"
    if "redis-password" in parameters or {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"} & set(variables):
        yield "address and password of Redis belong into gcsFaultToleranceOptions"
    if options.get("backend", "redis") == "rocksdb":
        yield "gcsFaultToleranceOptions.backend: rocksdb needs a feature gate that is off by default"
    elif "storage" in options:
        yield "gcsFaultToleranceOptions.storage: only with rocksdb"


def _environment(group: Tree) -> dict[str, str | None]:
    return {e["name"]: e.get("value") for e in group["template"]["spec"]["containers"][0].get("env", [])}


def _is_v2(spec: Tree) -> bool:
    named = (spec.get("autoscalerOptions") or {}).get("version") == "v2"
    by_variable = _environment(spec["headGroupSpec"]).get(_V2) in ("1", "true")
    return bool(spec.get("enableInTreeAutoscaling")) and (named or by_variable)


def _version(spec: Tree) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", spec.get("rayVersion", "0"))[:3])
