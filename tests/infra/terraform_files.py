"""Terraform files as trees, and what is wrong with any of them: no HCL, dead references, unknown arguments."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

hcl2 = pytest.importorskip("hcl2")

INFRA = Path(__file__).parents[2] / "infra"
Tree = dict[str, Any]
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}


def sources(cloud: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((INFRA / "terraform" / cloud).glob("*.tf"))}


def plain(node: Any) -> Any:
    """hcl2's tree with its quotes and marks taken off."""
    if isinstance(node, dict):
        return {plain(k): plain(v) for k, v in node.items() if k not in ("__is_block__", "__comments__")}
    if isinstance(node, list):
        return [plain(item) for item in node]
    if isinstance(node, str) and len(node) > 1 and node[0] == node[-1] == '"':
        return node[1:-1]
    return node


def blocks(files: Mapping[str, str], kind: str) -> dict[str, Tree]:
    """`type.name` (or `name`) -> body, of all blocks of a kind."""
    found: dict[str, Tree] = {}
    for text in files.values():
        for block in plain(hcl2.loads(text)).get(kind, []):
            for name, body in block.items():
                if kind in ("resource", "data"):
                    found |= {f"{name}.{inner}": value for inner, value in body.items()}
                else:
                    found[name] = body
    return found


def file_problems(
    files: Mapping[str, str], *, prefix: str, arguments: Mapping[str, set[str]], required: Mapping[str, set[str]]
) -> list[str]:
    """What `terraform validate` would find with the provider whose types start with `prefix`."""
    try:
        resources, data, variables = (blocks(files, kind) for kind in ("resource", "data", "variable"))
    except Exception as error:  # lark's, by the dozen
        return [f"no HCL: {str(error).splitlines()[0]}"]
    everything = "\n".join(re.sub(r"#.*", "", text) for text in files.values())
    found = []
    for name in sorted(set(re.findall(r"\bvar\.(\w+)", everything)) ^ set(variables)):
        found.append(f"variable {name} is used or declared, not both")
    for name in sorted(set(re.findall(rf"(?<![.\w\"])({prefix}_\w+\.\w+)\.", everything)) - set(resources)):
        found.append(f"{name} is no resource here")
    for name in sorted(set(re.findall(rf"\bdata\.({prefix}_\w+\.\w+)\.", everything)) - set(data)):
        found.append(f"data.{name} is no data source here")
    for name, body in (resources | data).items():
        kind = name.split(".")[0]
        if kind not in arguments:
            found.append(f"{name}: unknown type")
            continue
        found += [f"{name}: unknown argument {key}" for key in sorted(set(body) - arguments[kind] - META)]
        found += [f"{name}: lacks {key}" for key in sorted(required.get(kind, set()) - set(body))]
    return found


def kuberay_pods() -> dict[str, Tree]:
    """Specs of the head's and each worker group's pod."""
    spec = yaml.safe_load((INFRA / "kuberay" / "raycluster.yaml").read_text())["spec"]
    pods = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **pods}


def kuberay_account() -> Tree:
    """Metadata of the pods' service account."""
    objects = yaml.safe_load_all((INFRA / "kuberay" / "common.yaml").read_text())
    account: Tree = next(o for o in objects if o["kind"] == "ServiceAccount")["metadata"]
    return account


def check_with_terraform(cloud: str, folder: Path) -> None:
    """`terraform fmt`, and `validate` where TF_PLUGIN_DIR holds the providers; skips without them."""
    shutil.copytree(INFRA / "terraform" / cloud, folder / cloud, ignore=shutil.ignore_patterns(".terraform*"))
    variables = {k: v for k, v in os.environ.items() if k != "TF_CLI_CONFIG_FILE"} | {"CHECKPOINT_DISABLE": "1"}

    def terraform(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["terraform", f"-chdir={folder / cloud}", *words]
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)

    assert terraform("fmt", "-check", "-diff").stdout == ""
    mirror = os.environ.get("TF_PLUGIN_DIR")
    if mirror is None:
        pytest.skip("formatted; validate needs the provider: set TF_PLUGIN_DIR to a folder that holds it")
    assert terraform("init", "-backend=false", f"-plugin-dir={mirror}").returncode == 0
    done = terraform("validate")
    assert done.returncode == 0, done.stdout + done.stderr
