import io
import json
import logging

from vidcls_batch.dataset.events import EventLog
from vidcls_batch.errors import StorageError
from vidcls_batch.json_progress import JsonProgress
from vidcls_batch.storage import StorageOptions, open_store


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_each_line_is_an_object_with_its_time_event_and_run():
    stream, clock = io.StringIO(), Clock()
    with JsonProgress(stream, clock=clock) as log:
        log.say("Planning\n[x] ...")
        log.about("s3://bucket/run")
        log.start(total=10, done=2)
        clock.now += 4
        log.add({"ok": 3})
        clock.now += 8
        log.add({"ok": 2, "timeout": 1})
    log.failed(StorageError("no room"), exit_code=6)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["message", "progress", "progress", "error"]
    assert lines[0] == {"at": "2023-11-14T22:13:20.000+00:00", "event": "message", "run": None,
                        "text": "Planning\n[x] ..."}  # fmt: skip
    assert lines[1] == lines[2] == {
        "at": "2023-11-14T22:13:32.000+00:00", "event": "progress", "run": "s3://bucket/run",
        "clips": 10, "clips_done": 8, "statuses": {"ok": 5, "timeout": 1}, "clips_per_s": 0.5, "eta_s": 4,
    }  # fmt: skip
    assert lines[3].items() >= {"error": "StorageError", "message": "no room", "exit_code": 6}.items()


def test_events_are_lines_of_the_log_while_it_is_open(tmp_path):
    store = open_store(str(tmp_path / "run"), options=StorageOptions())
    store.create()
    stream = io.StringIO()
    events = EventLog(store, driver="d", say=print)
    with JsonProgress(stream) as log:
        log.about(store.uri)
        events.add("quarantined", unit=3, clip_id="c\u2028\n7")
    events.add("block_lost")
    logging.getLogger("vidcls_batch.events").info("not heard")
    (line,) = stream.getvalue().split("\n")[:-1]
    assert json.loads(line).items() >= {"unit": 3, "clip_id": "c\u2028\n7", "run": store.uri, "driver": "d"}.items()
