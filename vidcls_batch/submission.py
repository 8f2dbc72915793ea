"""Runs submitted to a Ray cluster: what travels there, following the job, and its end as an exit status."""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import vidcls_batch
from vidcls_batch.config import Config, parse_config, resolved
from vidcls_batch.errors import ClusterError, ConfigError
from vidcls_batch.storage import absolute_uri

RUN_KEY = "vidcls.run"  # the job's metadata that says which run it works on
ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
# Code and a few text files; more than this is data, which belongs on a store.
MOST_BYTES = 32 << 20
POLL_S = 1.0
STOP_TIMEOUT_S = 60.0
# A head that restarts (with GCS fault tolerance) is away for about a minute.
LOST_HEAD_PATIENCE_S = 120.0
EXIT_CLUSTER, EXIT_STOPPED = 7, 130
_SECRET = re.compile(r"secret|token|password|credential|(^|_)key($|_)|access_key", re.IGNORECASE)
_CARRIED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "HF_HUB_OFFLINE")
# Not for the cluster: tests' caches and compiled code.
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    """A job on the cluster and how it ended, as far as it was waited for."""

    job: str
    run_uri: str
    status: str
    exit_code: int | None
    message: str = ""

    def __str__(self) -> str:
        why = f" ({self.message})" if self.message else ""
        return f"Job {self.job} for {self.run_uri}: {self.status.lower()}{why}"


def submit_run(
    config: Config,
    *,
    address: str,
    environment: Mapping[str, str],
    follow: bool,
    log_format: str = "text",
    say: Callable[[str], None],
    write: Callable[[str], None],
) -> SubmittedRun:
    """Run `config` as a job of the cluster at `address` (http://head:8265), or join the job that already does.

    `say` gets our own lines, `write` the job's output, in the `log_format` of `vidcls run`. Raises ConfigError for what
    must not or need not travel, ClusterError where the cluster does not answer.
    """
    client = _client(address)
    run_uri = absolute_uri(config.run.path)
    job = _running_job(client, run_uri)
    if job is not None:
        say(f"Job {job} works on {run_uri} already: following it")
    else:
        with TemporaryDirectory(prefix="vidcls-submit-") as folder:
            num_bytes = pack(config, folder=Path(folder), say=say)
            job = f"vidcls-{hashlib.sha256(run_uri.encode()).hexdigest()[:8]}-{secrets.token_hex(3)}"
            client.submit_job(
                entrypoint=f"python -m vidcls_batch run config.yaml --log-format {log_format}",
                submission_id=job,
                metadata={RUN_KEY: run_uri},
                runtime_env={"working_dir": folder, "env_vars": job_environment(environment)},
            )
        say(f"Job {job} submitted with {num_bytes / 1e6:.1f} MB of code and settings; it writes to {run_uri}")
    if not follow:
        return SubmittedRun(job, run_uri, client.get_job_status(job).value, None)
    return _outcome(_follow(client, job, write=write), job=job, run_uri=run_uri)


def stop_run(config: Config, *, address: str) -> SubmittedRun:
    """Stop the job that works on the run; what is committed stays. Raises ClusterError where there is none."""
    client = _client(address)
    run_uri = absolute_uri(config.run.path)
    job = _running_job(client, run_uri)
    if job is None:
        raise ClusterError(f"no job of the cluster at {address} works on {run_uri}; nothing to stop")
    client.stop_job(job)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (status := client.get_job_status(job)) not in ENDED:
        if time.monotonic() > deadline:
            raise ClusterError(f"job {job} did not stop within {STOP_TIMEOUT_S:g} s; look at it with `ray job status`")
        time.sleep(POLL_S / 4)
    return SubmittedRun(job, run_uri, status.value, 0, "the same submit again resumes the run")


def pack(config: Config, *, folder: Path, say: Callable[[str], None]) -> int:
    """Put the code, the config and the small files it names into `folder`; returns their bytes.

    Videos, manifests and checkpoints do not travel. Raises ConfigError for more than MOST_BYTES.
    """
    shutil.copytree(Path(vidcls_batch.__file__).parent, folder / "vidcls_batch", ignore=_LEFT_OUT)
    tree = resolved(config)
    tree["run"]["path"] = absolute_uri(config.run.path)
    tree["manifest"]["path"] = absolute_uri(config.manifest.path)
    tree["run"]["ray_address"] = None  # the job's own cluster
    for where in (config.run.path, config.manifest.path):
        if "://" not in where:
            say(f"Note: {absolute_uri(where)} must be there on the cluster's machines too; better use a store")
    for holder, key, name in _small_files(tree):
        holder[key] = _copy(Path(holder[key]), name=name, folder=folder)
    for member in tree["members"]:
        if Path(member["checkpoint"]).exists():
            member["checkpoint"] = str(Path(member["checkpoint"]).absolute())
            say(f"Note: the checkpoint {member['checkpoint']} does not travel; it must be there on each worker")
    parse_config(tree)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if num_bytes > MOST_BYTES:
        raise ConfigError(f"{num_bytes / 1e6:.0f} MB would travel to the cluster, {MOST_BYTES >> 20} MB are allowed")
    return num_bytes


def _small_files(tree: dict[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
    """Where the config names files of this machine that a run reads at its start: (mapping, key, name to travel by)."""
    found = [(tree["label_set"], "file", "label_set"), (tree["ensemble"], "calibration", "calibration")]
    for member in tree["members"]:
        name = member["name"]
        found += [(member, "mapping", f"{name}-mapping"), (member, "prompts", f"{name}-prompts")]
        if member.get("labels"):
            found.append((member["labels"], "file", f"{name}-labels"))
    return [(h, k, n) for h, k, n in found if isinstance(h.get(k), str) and Path(h[k]).is_file()]


def _copy(source: Path, *, name: str, folder: Path) -> str:
    # The same name each time: paths are part of what makes a resumed run the same run.
    target = Path("files") / f"{name}{source.suffix}"
    (folder / "files").mkdir(exist_ok=True)
    shutil.copyfile(source, folder / target)
    return str(target)


def job_environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the job's processes get: `given`, and where the stores are. Raises ConfigError for a credential."""
    for name, value in given.items():
        if _SECRET.search(name) or re.match(r"^[a-z0-9+.-]+://[^/@\s]+:[^/@\s]+@", value, re.IGNORECASE):
            raise ConfigError(
                f"--env {name} looks like a credential, and a job's environment is shown to everybody on the cluster's "
                "dashboard: give it to the workers by their role, or by the environment of the nodes or pods"
            )
    carried = {name: os.environ[name] for name in _CARRIED if os.environ.get(name)}
    return {**carried, **given}


def _client(address: str) -> JobSubmissionClient:
    try:
        return JobSubmissionClient(address)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError, ... for what is no cluster
        raise ClusterError(f"no Ray job server at {address}: {error}. It is the head's dashboard port.") from error


def _running_job(client: JobSubmissionClient, run_uri: str) -> str | None:
    jobs = [j for j in client.list_jobs() if (j.metadata or {}).get(RUN_KEY) == run_uri and j.status not in ENDED]
    return max(jobs, key=lambda j: j.start_time or 0).submission_id if jobs else None


def _follow(client: JobSubmissionClient, job: str, *, write: Callable[[str], None]) -> JobDetails:
    """Hand the job's output on until it ends. A connection that breaks is taken up again where it was."""
    seen = 0
    last_answer = time.monotonic()
    while True:
        try:
            info = client.get_job_info(job)
            if info.status is not JobStatus.PENDING:
                seen = asyncio.run(_tail(client, job, skip=seen, write=write))
                info = client.get_job_info(job)
            last_answer = time.monotonic()
            if info.status in ENDED:
                return info
        except Exception as error:  # whatever HTTP library and Ray say when the head is away
            if time.monotonic() - last_answer > LOST_HEAD_PATIENCE_S:
                raise ClusterError(
                    f"the cluster's head has not answered for {LOST_HEAD_PATIENCE_S:g} s ({error}). What is committed "
                    "stays; submit again when it is back."
                ) from error
        time.sleep(POLL_S)


async def _tail(client: JobSubmissionClient, job: str, *, skip: int, write: Callable[[str], None]) -> int:
    """Write the log from character `skip` on; returns where it ends."""
    position = 0
    async for chunk in client.tail_job_logs(job):
        new = chunk[max(0, skip - position) :]
        position += len(chunk)
        if new:
            write(new)
    return max(position, skip)


def _outcome(info: JobDetails, *, job: str, run_uri: str) -> SubmittedRun:
    code = info.driver_exit_code
    message = (info.message or "").strip().splitlines()
    if info.status is JobStatus.SUCCEEDED:
        return SubmittedRun(job, run_uri, info.status.value, 0)
    if info.status is JobStatus.STOPPED:
        return SubmittedRun(job, run_uri, info.status.value, EXIT_STOPPED, "the same submit again resumes the run")
    if code is None or code < 0 or code > 128:
        # Killed, or never started: nothing that the run itself said.
        reason = message[-1] if message else "the driver ended without an exit status"
        return SubmittedRun(job, run_uri, info.status.value, EXIT_CLUSTER, f"{reason}; submit again to resume")
    return SubmittedRun(job, run_uri, info.status.value, code)
