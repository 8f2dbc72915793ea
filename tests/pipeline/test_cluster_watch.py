"""What is told of nodes that come and go, and of machines that are waited for."""

import pytest

from vidcls_batch.cluster_watch import ClusterWatch, needs_of
from vidcls_batch.config import GroupConfig, ResourcesConfig
from vidcls_batch.dataset.events import EventLog, read_events
from vidcls_batch.metrics import DriverMetrics
from vidcls_batch.resources import Capacity, stage_resources
from vidcls_batch.run_watch import RunWatch
from vidcls_batch.storage import StorageOptions, open_store


def node(name: str, *, alive: bool = True, labels: dict | None = None, **resources: float) -> dict:
    return {"NodeID": name, "Alive": alive, "NodeManagerAddress": f"ip-{name}", "Resources": resources,
            "Labels": labels or {}, "DeathReasonMessage": "" if alive else "health check failed"}  # fmt: skip


class Watched:
    def __init__(self, tmp_path, groups=(), **resources) -> None:
        self.now, self.said = 0.0, []
        store = open_store(str(tmp_path), options=StorageOptions())
        self.log = EventLog(store, driver="d", say=self.said.append)
        self.store = store
        settled = stage_resources(
            ResourcesConfig(device="cuda", **resources),
            capacity=Capacity(num_cpus=4, num_gpus=0, private=False),
            frame_bytes=1,
            groups=groups,
        )
        self.watch = ClusterWatch(
            needs_of(settled), watch=RunWatch(self.log), say=self.said.append, clock=lambda: self.now
        )

    def events(self) -> list[dict]:
        self.log.write()
        return list(read_events(self.store))


def test_node_that_goes_is_told_with_its_reason_and_one_that_comes_too(tmp_path):
    watched = Watched(tmp_path, classify_gpus=0.5)
    one, two = node("n1", CPU=4, GPU=1), node("n2", CPU=4)
    watched.watch.look([one, two])
    watched.watch.look([one, node("n2", alive=False), node("n3", CPU=2)])
    kinds = [(e["event"], e["node"]) for e in watched.events()]
    assert kinds == [("node_joined", "n3"), ("node_lost", "n2")]
    assert watched.events()[1]["reason"] == "health check failed"
    assert any("n2" in line and "gone" in line for line in watched.said)


def test_run_that_waits_for_machines_says_for_what_and_when_they_are_there(tmp_path):
    watched = Watched(tmp_path, classify_gpus=1, accelerator_type="A10G", classify_labels={"pool": "spot"})
    cpus = node("n1", CPU=4)
    other = node("n2", CPU=4, GPU=1, **{"accelerator_type:T4": 1.0}, labels={"pool": "spot"})
    for watched.now in (0, 10, 20, 30, 150):
        watched.watch.look([cpus, other])
    waits = [line for line in watched.said if line.startswith("Waiting for capacity")]
    assert len(waits) == 2
    assert "classifying (0.5 CPU, 1 GPU, 0.001 accelerator_type:A10G, pool=spot)" in waits[0]
    assert "decoding" not in waits[0]
    watched.now = 160
    watched.watch.look([cpus, node("n3", CPU=8, GPU=1, **{"accelerator_type:A10G": 1.0}, labels={"pool": "spot"})])
    assert watched.said[-1] == "Capacity is there after 160 s"
    assert [e["event"] for e in watched.events()][-2:] == ["node_lost", "capacity_there"]


@pytest.mark.parametrize(
    ("nodes", "fits"),
    [
        ([node("a", CPU=2, GPU=1)], True),
        ([node("a", CPU=1.5, GPU=1)], True),
        ([node("a", CPU=1.4, GPU=1)], False),  # each alone, not both
        ([node("a", CPU=1, GPU=1), node("b", CPU=1)], True),
        ([node("b", CPU=1), node("a", CPU=1, GPU=1)], True),  # decoding must not take the only node with a GPU
        ([node("a", CPU=1, GPU=1), node("b", CPU=0.9)], False),
    ],
)
def test_stages_that_fit_one_by_one_must_fit_beside_each_other(tmp_path, nodes, fits):
    watched = Watched(tmp_path, classify_gpus=1)
    for watched.now in (0, 40):
        watched.watch.look(nodes)
    assert (
        watched.said == [] if fits else "decoding (1 CPU) and classifying (0.5 CPU, 1 GPU) at once" in watched.said[0]
    )


def test_short_wait_is_not_worth_a_line(tmp_path):
    watched = Watched(tmp_path, classify_gpus=1)
    watched.watch.look([node("n1", CPU=4)])
    watched.now = 5
    watched.watch.look([node("n1", CPU=4, GPU=1)])
    assert watched.said == []


def test_groups_of_members_need_as_many_devices_at_once(tmp_path):
    groups = [GroupConfig(members=("a",)), GroupConfig(members=("b",))]
    watched = Watched(tmp_path, groups=groups, classify_gpus=1)
    for watched.now in (0, 40):
        watched.watch.look([node("n1", CPU=4, GPU=1), node("n2", CPU=4)])
    assert "classifying (2 x 0.5 CPU, 1 GPU)" in watched.said[-1]
    watched.now = 50
    watched.watch.look([node("n1", CPU=4, GPU=1), node("n2", CPU=4, GPU=1)])
    assert watched.said[-1] == "Capacity is there after 50 s"


def test_gauges_are_set_anew_at_each_look_since_ray_forgets_those_that_are_not(monkeypatch):
    told: dict[str, list[float]] = {}

    class Recorded:
        def __init__(self, name: str, *_: object, **__: object) -> None:
            self.values = told.setdefault(name, [])

        def set(self, value: float) -> None:
            self.values.append(value)

    monkeypatch.setattr("vidcls_batch.metrics.Gauge", Recorded)
    watch = RunWatch(metrics=DriverMetrics())
    watch.start(to_do=7)
    watch.held(3)
    before = {name: len(values) for name, values in told.items()}
    ClusterWatch([], watch=watch, say=print).look([node("n1", CPU=4)])
    assert {name: values[-1] for name, values in told.items()} == {
        "vidcls_clips_to_do": 7,
        "vidcls_held_clips": 3,
        "vidcls_waiting_for_capacity": 0,
    }
    assert {name: len(values) - before[name] for name, values in told.items()} == dict.fromkeys(told, 1)
