"""A node that joins a head of `ray_head`, in walls of its own: with less memory, or behind a cable."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from driver import titled
from ray_head import NODE_SETTINGS, RayHead, free_port


@dataclass(frozen=True)
class RayNode:
    process: subprocess.Popen[bytes]
    log: Path
    seen: set[psutil.Process] = field(default_factory=set)

    def processes(self) -> list[psutil.Process]:
        """All of it that still runs, the raylet's workers too."""
        try:
            start = psutil.Process(self.process.pid)
            self.seen.update([start, *start.children(recursive=True)])
        except psutil.NoSuchProcess:
            pass
        return [process for process in self.seen if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    def workers(self, title: str) -> list[psutil.Process]:
        """Ray's workers whose title has `title` in it: what they are doing."""
        return titled(self.processes(), title)

    def kill(self) -> None:
        """SIGKILL to every process."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


@contextmanager
def ray_node(
    head: RayHead,
    *,
    num_cpus: int,
    environment: Mapping[str, str],
    host: str = "127.0.0.1",
    within: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Iterator[RayNode]:
    """A node that is started by the command `within`, which runs the command behind it inside its walls."""
    ports = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    command = [
        *within, str(Path(sys.executable).parent / "ray"), "start", "--block", f"--address={head.gcs_address}",
        f"--node-ip-address={host}", f"--num-cpus={num_cpus}", f"--object-store-memory={128 << 20}",
        "--disable-usage-stats", *(f"--{name}={free_port()}" for name in ports), *arguments,
    ]  # fmt: skip
    variables = os.environ | NODE_SETTINGS | environment
    variables.pop("RAY_ADDRESS", None)
    log = head.folder / "node.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=variables, stdout=out, stderr=out, start_new_session=True)
    node = RayNode(process, log)
    try:
        yield node
    finally:
        node.kill()
        psutil.wait_procs(node.seen, timeout=30)
