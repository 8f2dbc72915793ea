"""A run in a process of its own, that a test may kill."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
import yaml

from vidcls_batch.config import Config, resolved

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHILDREN_GONE_S = 30


class Driver:
    """`jobs/label.py` and the private Ray cluster it starts."""

    def __init__(
        self,
        config: Config,
        *,
        folder: Path,
        before_exec: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        path, log = folder / "config.yaml", folder / "driver.log"
        path.write_text(yaml.safe_dump(resolved(config)))
        self.log = log
        variables = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"} | (environment or {})
        variables.pop("RAY_ADDRESS", None)
        command = [sys.executable, str(ROOT / "jobs" / "label.py"), "--config", str(path)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=variables, start_new_session=True, preexec_fn=before_exec
            )
        self.seen: set[psutil.Process] = set()

    def children(self) -> list[psutil.Process]:
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self.seen.update(found)
        return found

    def named(self, title: str) -> list[psutil.Process]:
        return titled(self.children(), title)

    def kill(self) -> None:
        self.children()
        self.process.kill()
        self.process.wait()

    def wait_for(self, condition: Callable[[], object], *, timeout_s: float = 240) -> None:
        """Until the condition holds; a driver that ends before, or a wait too long, shows the end of the log."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"the driver ended with {self.process.poll()}:\n{self.tail()}"
            assert time.monotonic() < end, f"waited {timeout_s} s in vain:\n{self.tail()}"
            time.sleep(0.1)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def finish(self, timeout_s: float = 150) -> int:
        return self.process.wait(timeout=timeout_s)

    def end(self) -> None:
        """End this driver and the Ray processes it started, by id."""
        if self.process.poll() is None:
            self.children()
            self.process.kill()
            self.process.wait()
        psutil.wait_procs(self.seen, timeout=CHILDREN_GONE_S)
        for child in self.seen:
            if child.is_running():
                child.kill()


def titled(processes: Iterable[psutil.Process], title: str) -> list[psutil.Process]:
    """Those whose title has `title` in it (Ray's workers tell there what they are doing) and that still run."""
    found = []
    for process in processes:
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
