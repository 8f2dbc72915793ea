"""The launcher files against Ray's own schema, EC2's and Compute Engine's fields, and planted mistakes."""

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import vidcls_batch

pytest.importorskip("jsonschema")
botocore_session = pytest.importorskip("botocore.session")

FOLDER = Path(__file__).parents[2] / "infra" / "cluster_launcher"
Tree = dict[str, Any]
# Of the Compute Engine API's Instance, what an instance is made with.
GCP_INSTANCE = {
    "machineType", "disks", "scheduling", "serviceAccounts", "labels", "metadata", "tags", "networkInterfaces",
    "guestAccelerators", "shieldedInstanceConfig", "canIpForward", "minCpuPlatform",
}  # fmt: skip
GCP_SCHEDULING = {
    "provisioningModel",
    "instanceTerminationAction",
    "onHostMaintenance",
    "automaticRestart",
    "preemptible",
}
FILES = ("aws.yaml", "gcp.yaml")


def load(name: str) -> Tree:
    return yaml.safe_load((FOLDER / name).read_text())


def problems(config: Tree) -> list[str]:
    """What Ray's launcher, the cloud's API or this house would refuse."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)) | {"cluster_synced_files": []})
    except Exception as error:  # jsonschema's, ValueError, KeyError: whatever stops `ray up`
        return [f"ray: {str(error).splitlines()[0]}"]
    found: list[str] = []
    check_node = {"aws": _aws_problems, "gcp": _gcp_problems}[config["provider"]["type"]]
    total = sum(t.get("max_workers", 0) for t in config["available_node_types"].values())
    if total != config["max_workers"]:
        found.append(f"max_workers is {config['max_workers']}, the types' sum {total}")
    for name, node in config["available_node_types"].items():
        found += [f"{name}: {problem}" for problem in check_node(node["node_config"])]
        is_head = name == config["head_node_type"]
        if is_head == _is_spot(node["node_config"]):
            found.append(f"{name}: the head on demand, workers on spot machines")
        if is_head and node["resources"].get("CPU") != 0:
            found.append(f"{name}: the head does no work")
        if not is_head and node.get("min_workers") != 0:
            found.append(f"{name}: workers start at none")
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        started = config[key][-1]
        for part in ("RAY_AUTH_MODE=token", "--metrics-export-port=8080"):
            if part not in started:
                found.append(f"{key}: lacks {part}")
    if "RAY_enable_autoscaler_v2=1" not in config["head_start_ray_commands"][-1]:
        found.append("head_start_ray_commands: autoscaler v2 is off")
    if not any("auth_token" in path for path in config.get("file_mounts", {})):
        found.append("file_mounts: no token for RAY_AUTH_MODE=token")
    return found


@cache
def _run_instances() -> Any:
    # Megabytes of JSON: read once.
    return botocore_session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _aws_problems(node: Tree) -> list[str]:
    from botocore.validate import ParamValidator

    shape = _run_instances()
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node}, shape)
    found = report.generate_report().splitlines() if report.has_errors() else []
    if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
        found.append("IMDSv2 must be required: videos are decoded here")
    if not all(d["Ebs"].get("Encrypted") for d in node.get("BlockDeviceMappings", [])):
        found.append("a disk is not encrypted")
    return found


def _gcp_problems(node: Tree) -> list[str]:
    found = [f"{key} is no field of an instance" for key in sorted(set(node) - GCP_INSTANCE)]
    scheduling = node.get("scheduling", {})
    if not isinstance(scheduling, dict):
        return [*found, "scheduling must be a mapping"]
    found += [f"scheduling.{key} is no field" for key in sorted(set(scheduling) - GCP_SCHEDULING)]
    if scheduling.get("provisioningModel", "STANDARD") not in ("STANDARD", "SPOT"):
        found.append("scheduling.provisioningModel: STANDARD or SPOT")
    if scheduling.get("provisioningModel") == "SPOT" and scheduling.get("automaticRestart", True):
        found.append("scheduling.automaticRestart: a spot machine cannot")
    if not any(d.get("boot") for d in node.get("disks", [])):
        found.append("no boot disk")
    return found


def _is_spot(node: Tree) -> bool:
    aws, gcp = node.get("InstanceMarketOptions"), node.get("scheduling")
    is_aws = isinstance(aws, dict) and aws.get("MarketType") == "spot"
    return is_aws or (isinstance(gcp, dict) and gcp.get("provisioningModel") == "SPOT")


@pytest.mark.parametrize("name", FILES)
def test_the_launcher_would_accept_it(name):
    assert problems(load(name)) == []


def _put(*path: str, value: Any) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        for key in path[:-1]:
            tree = tree[key]
        if value is None:
            del tree[path[-1]]
        else:
            tree[path[-1]] = value

    return change


NODE = ("available_node_types", "gpu", "node_config")
MISTAKES: list[tuple[str, Callable[[Tree], None], str]] = [
    ("aws.yaml", _put("max_worker", value=3), "Additional properties are not allowed"),
    ("aws.yaml", _put("head_node_type", value="heads"), "must be one of"),
    ("aws.yaml", _put("provider", "type", value=None), "ray:"),
    ("aws.yaml", _put("docker", "container_name", value=None), "ray:"),
    ("aws.yaml", _put("idle_timeout_minutes", value="soon"), "is not of type"),
    ("aws.yaml", _put("available_node_types", "gpu", "min_workers", value=99), "max_workers"),
    ("aws.yaml", _put(*NODE, "InstanceTyp", value="g5.4xlarge"), 'Unknown parameter in input: "InstanceTyp"'),
    ("aws.yaml", _put(*NODE, "InstanceMarketOptions", value={"MarketTyp": "spot"}), "MarketTyp"),
    ("aws.yaml", _put(*NODE, "InstanceMarketOptions", value=None), "gpu: the head on demand, workers on spot"),
    ("aws.yaml", _put(*NODE, "MetadataOptions", value={"HttpTokens": "optional"}), "IMDSv2 must be required"),
    ("aws.yaml", _put("available_node_types", "head", "resources", value={"CPU": 4}), "the head does no work"),
    ("aws.yaml", _put("max_workers", value=60), "max_workers is 60, the types' sum 58"),
    ("aws.yaml", _put("worker_start_ray_commands", value=["ray start --address=$RAY_HEAD_IP:6379"]), "RAY_AUTH_MODE"),
    ("aws.yaml", _put("file_mounts", value={}), "no token"),
    ("gcp.yaml", _put(*NODE, "machinetype", value="g2-standard-16"), "machinetype is no field of an instance"),
    ("gcp.yaml", _put(*NODE, "scheduling", value=[{"preemptible": True}]), "scheduling must be a mapping"),
    ("gcp.yaml", _put(*NODE, "scheduling", value={"provisioningModel": "SPOT"}), "automaticRestart"),
    ("gcp.yaml", _put(*NODE, "disks", value=[]), "no boot disk"),
]


@pytest.mark.parametrize(("name", "change", "message"), MISTAKES)
def test_a_planted_mistake_is_caught(name, change, message):
    config = copy.deepcopy(load(name))
    config = yaml.safe_load(yaml.dump(config, Dumper=_NoAliases))
    change(config)
    found = problems(config)
    assert any(message in problem for problem in found), found


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("name", FILES)
def test_both_clouds_have_the_same_cluster_and_our_image(name):
    config, other = load(name), load(FILES[1 - FILES.index(name)])
    assert config["docker"] == other["docker"]
    assert config["docker"]["image"].endswith(f"vidcls-batch:{vidcls_batch.__version__}-cuda")
    counts = {n: (t.get("min_workers"), t.get("max_workers")) for n, t in config["available_node_types"].items()}
    assert counts == {n: (t.get("min_workers"), t.get("max_workers")) for n, t in other["available_node_types"].items()}
    assert config["head_start_ray_commands"] == other["head_start_ray_commands"]
    assert not re.search(r"0\.0\.0\.0", (FOLDER / name).read_text())
