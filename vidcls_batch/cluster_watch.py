"""Nodes that come and go while a run works, and the wait for machines that are not there yet."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from vidcls_batch.resources import StageResources
from vidcls_batch.run_watch import RunWatch

POLL_S = 2.0
# A wait is told of after so long, and again after so long.
WAIT_TOLD_AFTER_S, WAIT_TOLD_AGAIN_S = 15.0, 120.0

Node = Mapping[str, Any]  # of ray.nodes()


@dataclass(frozen=True, slots=True)
class Need:
    """What one worker of a stage asks of a single node, and how many must run at once."""

    stage: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    workers: int = 1

    def is_met(self, nodes: Iterable[Node]) -> bool:
        """Whether the nodes could run it once they are free."""
        return sum(self._fitting(node) for node in nodes) >= self.workers

    def left_on(self, node: Node) -> Node | None:
        """The node with one worker less room; None where it has no room for one."""
        if not self._fitting(node):
            return None
        has = {name: amount - self.resources.get(name, 0.0) for name, amount in node["Resources"].items()}
        return {**node, "Resources": has}

    def _fitting(self, node: Node) -> int:
        has, labels = node["Resources"], node.get("Labels") or {}
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return 0
        asked = {name: amount for name, amount in self.resources.items() if amount}
        return min((int(has.get(name, 0.0) / amount + 1e-6) for name, amount in asked.items()), default=self.workers)

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}" for name, amount in self.resources.items() if amount]
        parts += [f"{name}={value}" for name, value in self.labels.items()]
        several = f"{self.workers} x " if self.workers > 1 else ""
        return f"{self.stage} ({several}{', '.join(parts)})"


def needs_of(resources: StageResources) -> list[Need]:
    """What must be there for each stage to run at all."""
    classify = {"CPU": resources.classify_cpus, "GPU": resources.classify_gpus}
    if resources.accelerator_type:
        classify[f"accelerator_type:{resources.accelerator_type}"] = 0.001
    return [
        Need("decoding", {"CPU": resources.decode_cpus}, resources.decode_labels),
        Need("classifying", classify, resources.classify_labels, workers=len(resources.pools)),
    ]


def all_at_once(needs: Sequence[Need], nodes: Sequence[Node]) -> bool:
    """Whether there is room for the workers of all stages beside each other, not only for each by itself."""
    workers = [need for need in needs for _ in range(need.workers)]

    def place(index: int, free: list[Node]) -> bool:
        if index == len(workers):
            return True
        for position, node in enumerate(free):
            left = workers[index].left_on(node)
            if left is not None and place(index + 1, [*free[:position], left, *free[position + 1 :]]):
                return True
        return False

    return place(0, list(nodes))


class ClusterWatch:
    """Looks at the cluster's nodes now and then; `look` is what the thread of `watching` does."""

    def __init__(
        self,
        needs: Sequence[Need],
        *,
        watch: RunWatch,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._needs, self._watch, self._say, self._clock = needs, watch, say, clock
        self._nodes: dict[str, str] | None = None
        self._waiting_since: float | None = None
        self._told_at: float | None = None

    def look(self, nodes: Sequence[Node]) -> None:
        """Tell of nodes that came or went, and of a stage that no node can run."""
        self._watch.still_there()
        alive = {str(n["NodeID"]): n for n in nodes if n["Alive"]}
        if self._nodes is not None:
            for node_id in sorted(set(alive) - set(self._nodes)):
                self._watch.node_joined(node_id, host=str(alive[node_id].get("NodeManagerAddress", "")))
            for node_id in sorted(set(self._nodes) - set(alive)):
                why = next((str(n.get("DeathReasonMessage", "")) for n in nodes if n["NodeID"] == node_id), "")
                self._watch.node_lost(node_id, host=self._nodes[node_id], reason=why)
                self._say(f"Node {node_id[:8]} ({self._nodes[node_id]}) is gone; its blocks are made again")
        self._nodes = {node_id: str(n.get("NodeManagerAddress", "")) for node_id, n in alive.items()}
        unmet = [need for need in self._needs if not need.is_met(alive.values())]
        if unmet or all_at_once(self._needs, list(alive.values())):
            self._tell_of_wait(" and ".join(map(str, unmet)))
        else:
            self._tell_of_wait(" and ".join(map(str, self._needs)) + " at once")

    def _tell_of_wait(self, unmet: str) -> None:
        now = self._clock()
        if not unmet:
            if self._waiting_since is not None and self._told_at is not None:
                self._say(f"Capacity is there after {now - self._waiting_since:.0f} s")
                self._watch.capacity_there(seconds=round(now - self._waiting_since))
            self._waiting_since = self._told_at = None
            return
        if self._waiting_since is None:
            self._waiting_since = now
        since = now - self._waiting_since
        if since >= WAIT_TOLD_AFTER_S and (self._told_at is None or now - self._told_at >= WAIT_TOLD_AGAIN_S):
            self._told_at = now
            self._say(f"Waiting for capacity for {since:.0f} s: the cluster has no room for {unmet}")
            self._watch.waiting(for_what=unmet, seconds=round(since))


@contextmanager
def watching(watch: ClusterWatch) -> Iterator[None]:
    """Have the cluster that this process is connected to looked at while the context lasts."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(POLL_S):
            try:
                nodes = ray.nodes()
            except Exception:  # the head is away: the run itself says so
                continue
            watch.look(nodes)

    thread = threading.Thread(target=run, name="cluster-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(POLL_S * 2)
