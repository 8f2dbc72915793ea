"""The events of a run: written as they come, kept by each driver, told in order."""

import json
import logging

import pytest

from vidcls_batch.dataset.events import EVENTS, MOST_OF_A_KIND, EventLog, event_line, gather_events, read_events
from vidcls_batch.errors import StorageError
from vidcls_batch.storage import StorageOptions, open_store


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    uri = str(tmp_path / "run") if request.param == "disk" else "memory://bucket/run"
    store = open_store(uri, options=StorageOptions())
    store.create()
    return store


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def never(text: str) -> None:
    raise AssertionError(text)


def test_events_of_two_drivers_are_told_in_the_order_they_happened(store):
    clock = Clock()
    one, two = (EventLog(store, driver=name, say=never, clock=clock) for name in ("one", "two"))
    for turn, log in enumerate([one, two, one]):
        clock.now += 1
        log.add("unit_committed", unit=turn)
    one.close()
    two.close()
    gather_events(store)
    found = [json.loads(line) for line in store.read_bytes(EVENTS).decode().splitlines()]
    assert found == list(read_events(store))
    assert [(e["driver"], e["unit"]) for e in found] == [("one", 0), ("two", 1), ("one", 2)]
    assert found[0]["run"] == store.uri
    assert event_line(found[0]) == "2023-11-14 22:13:21  unit_committed     unit=0"


def test_a_driver_that_is_killed_leaves_all_but_its_last_seconds(store):
    clock = Clock()
    log = EventLog(store, driver="d", say=never, clock=clock)
    for second in range(25):
        clock.now += 1
        log.add("block_lost", second=second)
    assert [e["second"] for e in read_events(store)] == list(range(20))


def test_what_happens_too_often_is_counted(store):
    log = EventLog(store, driver="d", say=never)
    for number in range(MOST_OF_A_KIND + 7):
        log.add("block_lost", number=number)
    log.close()
    found = list(read_events(store))
    assert len(found) == MOST_OF_A_KIND + 1
    assert found[-1]["further"] == 7


def test_a_store_that_fails_does_not_fail_the_run_and_is_told_once(store, monkeypatch):
    said: list[str] = []
    log = EventLog(store, driver="d", say=said.append)

    def fail(*_):
        raise StorageError("no room")

    monkeypatch.setattr(type(store), "put", fail)
    log.add("block_lost")
    log.write()
    log.write()
    assert said == ["Events could not be written: no room"]


def test_events_go_to_the_log_as_json_lines(store, caplog):
    with caplog.at_level(logging.INFO, logger="vidcls_batch.events"):
        EventLog(store, driver="d", say=never).add("quarantined", unit=3, clip_id="c7")
    event = json.loads(caplog.messages[0])
    assert (event["event"], event["unit"], event["clip_id"], event["run"]) == ("quarantined", 3, "c7", store.uri)


def test_folder_without_events_says_so(store):
    with pytest.raises(StorageError, match="no events"):
        list(read_events(store))
    gather_events(store)
    assert not store.exists(EVENTS)
