"""A cluster of raylets on this machine, each of which a test may kill: `ray.cluster_utils.Cluster`, by its own pids."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from driver import titled
from ray.cluster_utils import Cluster

NODE_STORE_BYTES = 128 << 20


class Nodes:
    """The cluster; `kill` ends a node as a preempted machine ends."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, **resources: float):
        options = {"object_store_memory": NODE_STORE_BYTES, **resources}
        return self.cluster.add_node(**options)

    def workers(self, title: str) -> list[psutil.Process]:
        """Ray's workers on all nodes whose title has `title` in it: what they are doing."""
        nodes = (self.cluster.head_node, *self.cluster.worker_nodes)
        return titled((process for node in nodes for process in processes(node)), title)

    def kill(self, node) -> None:
        """SIGKILL to the raylet and all its workers at once."""
        for victim in processes(node):
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.cluster.worker_nodes.discard(node)


def processes(node) -> list[psutil.Process]:
    """A node's raylet and whatever is beside and below it."""
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return found + [child for process in found for child in process.children(recursive=True)]


@contextmanager
def three_nodes(*, head_cpus: int = 2, head_gpus: int = 0) -> Iterator[Nodes]:
    """A head without workers' CPUs to lose; nodes are added by the test."""
    folder = Path(tempfile.mkdtemp(prefix="vidcls-ray-", dir="/tmp"))
    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "240", "RAY_worker_niceness": "0",
                   "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}  # fmt: skip
    cluster = None
    try:
        head = {"num_cpus": head_cpus, "num_gpus": head_gpus, "object_store_memory": NODE_STORE_BYTES,
                "temp_dir": str(folder), "include_dashboard": False}  # fmt: skip
        cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        yield Nodes(cluster)
    finally:
        if cluster is not None:
            cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
