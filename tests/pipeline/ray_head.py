"""A Ray head of its own on this machine, with a job server: own ports, own folder, no other cluster touched."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

START_TIMEOUT_S = 120
# Also for the drivers that join: `ray.init` leaves another mode in the environment of the process it ran in, and a
# driver that asks for a token refuses the calls of a head that has none: its actors die, "all references removed".
AUTH_MODE = {"RAY_AUTH_MODE": "disabled"}
NODE_SETTINGS = AUTH_MODE | {"RAY_raylet_start_wait_time_s": "240", "RAY_worker_niceness": "0"}


@dataclass(frozen=True)
class RayHead:
    host: str
    port: int
    dashboard_port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def job_address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def gcs_address(self) -> str:
        return f"{self.host}:{self.port}"

    def processes(self) -> list[psutil.Process]:
        """All of it: Ray's processes are started in sessions of their own, so they are known by their folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.folder) in " ".join(process.cmdline()) or is_below(process, self.process.pid):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        """SIGKILL to every process, as when the machine goes."""
        for process in [*self.processes(), *self.processes()]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


@contextmanager
def ray_head(
    *,
    num_cpus: int,
    environment: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[RayHead]:
    """A head, and an end to all that is below it; `arguments` are more of `ray start`'s."""
    folder = Path(tempfile.mkdtemp(prefix="vidcls-ray-", dir="/tmp"))  # short: sockets have at most 107 characters
    ports = {name: free_port() for name in ("dashboard-port", "dashboard-agent-listen-port", "metrics-export-port",
                                             "dashboard-agent-grpc-port", "ray-client-server-port")}  # fmt: skip
    port = port or free_port()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # jobs start `python`
    variables = os.environ | {"PATH": programs, "RAY_JOB_STOP_WAIT_TIME_S": "20"} | NODE_SETTINGS | environment
    variables.pop("RAY_ADDRESS", None)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}",
        f"--temp-dir={folder}", f"--num-cpus={num_cpus}", f"--object-store-memory={256 << 20}",
        "--disable-usage-stats", f"--node-ip-address={host}", "--include-dashboard=true",
        *(f"--{name}={value}" for name, value in ports.items()), *arguments,
    ]  # fmt: skip
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    head = RayHead(host, port, ports["dashboard-port"], folder, process)
    try:
        _await_job_server(head)
        yield head
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _await_job_server(head: RayHead) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{head.job_address}/api/version", timeout=5):
                return
        except OSError:
            log = (head.folder / "start.log").read_text()
            assert head.process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.3)


def is_below(process: psutil.Process, ancestor: int) -> bool:
    return process.pid == ancestor or any(p.pid == ancestor for p in process.parents())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
