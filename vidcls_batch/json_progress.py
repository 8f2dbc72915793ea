"""A run's log as JSON lines on stderr, for log collectors: what happened, how far it is, what was said.

Each line is an object with `at`, `event` and `run`; those of `dataset/events.py` pass as they are, with the unit and
the clip ids they are about.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self, TextIO

from vidcls_batch.dataset.events import LOGGER as EVENTS
from vidcls_batch.progress import PLAIN_INTERVAL_S, ProgressLine
from vidcls_batch.storage import absolute_uri


class JsonProgress:
    """A `RunProgress` that writes JSON; within its context, the run's events go to the same stream."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock = stream, clock
        self._run: str | None = None
        self._line: ProgressLine | None = None
        self._last_print = 0.0
        self._handler = _AsTheyAre(self._print)

    def about(self, run: str) -> None:
        """The run folder that the lines after this one are about."""
        self._run = absolute_uri(run)

    def say(self, text: str) -> None:
        """A message for people."""
        self._write("message", text=text)

    def start(self, *, total: int, done: int) -> None:
        """Begin to count."""
        self._line = ProgressLine(total=total, done=done, clock=self._clock)
        self._last_print = self._clock()

    def add(self, statuses: Mapping[str, int]) -> None:
        """Count clips; a line every PLAIN_INTERVAL_S."""
        if self._line is None:
            return
        self._line.add(statuses)
        if self._clock() - self._last_print >= PLAIN_INTERVAL_S:
            self._last_print = self._clock()
            self._write_progress(self._line)

    def finish(self) -> None:
        """A last line of progress."""
        if self._line is not None:
            self._write_progress(self._line)
            self._line = None

    def failed(self, error: Exception, *, exit_code: int) -> None:
        """The command ends by an error."""
        self._write("error", error=type(error).__name__, message=str(error), exit_code=exit_code)

    def interrupted(self, *, resume: str | None, exit_code: int) -> None:
        """The command was stopped; `resume` is what goes on with it."""
        self._write("interrupted", resume=resume, exit_code=exit_code)

    def __enter__(self) -> Self:
        # A log of JSON is asked for by those who want all of it, whatever the level of other loggers is.
        EVENTS.setLevel(logging.INFO)
        EVENTS.addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        EVENTS.removeHandler(self._handler)
        EVENTS.setLevel(logging.NOTSET)

    def _write_progress(self, line: ProgressLine) -> None:
        rate = line.rate
        self._write(
            "progress",
            clips=line.total,
            clips_done=line.done,
            statuses=dict(line.statuses),
            clips_per_s=round(rate, 3),
            eta_s=round((line.total - line.done) / rate) if rate > 0 else None,
        )

    def _write(self, event: str, **facts: Any) -> None:
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        self._print(json.dumps({"at": at, "event": event, "run": self._run, **facts}, default=str))

    def _print(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)


class _AsTheyAre(logging.Handler):
    """Hands on the messages of a logger whose messages are JSON lines already."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(level=logging.INFO)
        self._hand_on = write

    def emit(self, record: logging.LogRecord) -> None:
        self._hand_on(record.getMessage())
