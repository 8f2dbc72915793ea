"""The Dockerfile: pinned, unprivileged, no more than the build needs, and its install steps carried out here."""

import fnmatch
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"
INSTRUCTIONS = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True)
class Step:
    """One instruction of a stage."""

    stage: str
    instruction: str
    value: str


def steps_of(text: str) -> list[Step]:
    """The file as instructions; continued lines joined, comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found, stage = [], ""
    for line in filter(str.strip, joined.splitlines()):
        instruction, _, value = line.partition(" ")
        if instruction == "FROM":
            stage = value.split(" AS ")[1] if " AS " in value else value
        found.append(Step(stage, instruction, value.strip()))
    return found


def problems(text: str) -> list[str]:
    """What this house does not allow in an image."""
    steps = steps_of(text)
    found = [f"unknown instruction {s.instruction}" for s in steps if s.instruction not in INSTRUCTIONS]
    bases = {s.value.split(" AS ")[0]: s.stage for s in steps if s.instruction == "FROM"}
    stages = {s.stage: s.value.split(" AS ")[0] for s in steps if s.instruction == "FROM"}
    defaults = dict(s.value.split("=", 1) for s in steps if s.instruction == "ARG" and "=" in s.value)
    for base in bases:
        name = defaults.get(base.strip("${}"), base)
        if name not in stages and not re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", name):
            found.append(f"base {name} is not pinned to a version")

    def chain(stage: str) -> list[str]:
        return [stage, *(chain(stages[stage]) if stages.get(stage) in stages else [])]

    for final in ("cpu", "cuda"):
        if final not in stages:
            found.append(f"no stage {final}")
            continue
        users = [
            s.value for name in reversed(chain(final)) for s in steps if s.stage == name and s.instruction == "USER"
        ]
        if not users or users[-1].split(":")[0] in ("0", "root"):
            found.append(f"{final} runs as root")
        if not any("build-" + final in s.value for s in steps if s.stage == final and s.instruction == "COPY"):
            found.append(f"{final} has no packages")
    for step in steps:
        if step.instruction == "RUN":
            for part in re.split(r"&&|;|\|\|", step.value):
                words = part.split()
                if words[:2] == ["pip", "install"] and not {"-c", "-r"} & set(words):
                    found.append(f"not pinned by constraints.txt: {part.strip()}")
                if words[:2] == ["apt-get", "install"] and "--no-install-recommends" not in words:
                    found.append(f"installs recommended packages: {part.strip()}")
                if words and words[0] in ("curl", "wget"):
                    found.append(f"downloads without a checksum: {part.strip()}")
            if "apt-get update" in step.value and "rm -rf /var/lib/apt/lists" not in step.value:
                found.append("leaves the lists of apt behind")
        if step.instruction == "COPY" and step.value.split()[0] == ".":
            found.append("copies the whole folder")
        if step.instruction in ("ARG", "ENV") and re.search(r"(?i)(secret|password|token|access_key)", step.value):
            found.append(f"a secret in {step.instruction}: it stays in the image")
    return found


def copied() -> list[tuple[str, str]]:
    """Stage and source of what is copied from the repository."""
    return [
        (s.stage, source)
        for s in steps_of(DOCKERFILE.read_text())
        if s.instruction == "COPY" and "--from" not in s.value
        for source in [w for w in s.value.split() if not w.startswith("--")][:-1]
    ]


def test_it_keeps_the_rules():
    assert problems(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("USER 1000:1000", "USER root", "runs as root"),
        ("USER 1000:1000\n", "", "runs as root"),
        ("python:3.11.14-slim-bookworm\n\nFROM", "python:latest\n\nFROM", "is not pinned to a version"),
        ("-c constraints.txt '.[crowd]'", "'.[crowd]'", "not pinned by constraints.txt"),
        (" --no-install-recommends", "", "installs recommended packages"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "leaves the lists"),
        ("COPY vidcls_batch ./vidcls_batch", "COPY . .", "copies the whole folder"),
        ("ENV HF_HOME=/cache/huggingface", "ENV HF_TOKEN=abc", "a secret in ENV"),
        ("WORKDIR /work\n", "WORKDR /work\n", "unknown instruction WORKDR"),
        ("FROM runtime AS cuda", "FROM runtime AS gpu", "no stage cuda"),
        ("COPY --from=build-cuda /opt/vidcls /opt/vidcls\n", "", "cuda has no packages"),
    ],
)
def test_a_planted_mistake_is_caught(old, new, message):
    text = DOCKERFILE.read_text()
    assert old in text
    found = problems(text.replace(old, new, 1))
    assert any(message in problem for problem in found), found


def test_what_is_copied_is_there_and_passes_the_ignore_file():
    kept = [
        line[1:] for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for _, source in copied():
        assert (REPOSITORY / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def test_image_and_deployment_files_speak_of_the_same_versions():
    import vidcls_batch

    text = DOCKERFILE.read_text()
    assert f"vidcls-batch:{vidcls_batch.__version__}-cuda" in text
    assert f"vidcls-batch:{vidcls_batch.__version__}-cuda" in (REPOSITORY / "infra/kuberay/rayjob.yaml").read_text()
    pins = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line)
    assert "torch" in pins
    assert f'rayVersion: "{pins["ray"]}"' in (REPOSITORY / "infra/kuberay/rayjob.yaml").read_text()
    assert re.search(r"PYTHON_IMAGE=python:3\.11\.", text)


def test_every_library_that_the_package_asks_for_is_pinned():
    pins = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    }
    asked = [r for r in distribution("vidcls-batch").requires or [] if "extra ==" not in r or 'extra == "crowd"' in r]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", r).group()).lower() for r in asked}
    assert names - {"vidcls-batch"} <= pins


def test_the_install_step_builds_a_package_from_what_is_copied(tmp_path):
    """The build stage's own command, over a folder that holds what the stage copies and no more."""
    stage = "build-cpu"
    source = tmp_path / "src"
    source.mkdir()
    for name, path in copied():
        if name == stage:
            subprocess.run(["cp", "-r", str(REPOSITORY / path), str(source / path)], check=True)
    install = [s for s in steps_of(DOCKERFILE.read_text()) if s.stage == stage and "'.[crowd]'" in s.value]
    assert len(install) == 1
    command = install[0].value.split("&&")[-1].strip()
    # The libraries are here; only the package itself is installed, into a folder of its own.
    words = shlex.split(command.replace("'.[crowd]'", "."))
    assert words[:2] == ["pip", "install"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "--no-deps", "--no-index", "--target", str(tmp_path / "site")],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    assert (tmp_path / "site" / "vidcls_batch" / "cli.py").exists()
    assert list((tmp_path / "site" / "vidcls_batch" / "data").rglob("*.yaml"))
    assert not list((tmp_path / "site").glob("tests*"))
