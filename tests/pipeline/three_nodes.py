"""A cluster of raylets on this machine, each of which a test may kill: `ray.cluster_utils.Cluster`, by its own pids."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
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

    def kill(self, node) -> None:
        """SIGKILL to the raylet and all its workers at once."""
        pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
        victims = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        victims += [child for victim in victims for child in victim.children(recursive=True)]
        for victim in victims:
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.cluster.worker_nodes.discard(node)


@contextmanager
def three_nodes(*, head_cpus: int = 2) -> Iterator[Nodes]:
    """A head without workers' CPUs to lose; nodes are added by the test."""
    folder = Path(tempfile.mkdtemp(prefix="vidcls-ray-", dir="/tmp"))
    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "240", "RAY_worker_niceness": "0",
                   "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}  # fmt: skip
    cluster = None
    try:
        head = {"num_cpus": head_cpus, "object_store_memory": NODE_STORE_BYTES, "temp_dir": str(folder),
                "include_dashboard": False}  # fmt: skip
        cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        yield Nodes(cluster)
    finally:
        if cluster is not None:
            cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
