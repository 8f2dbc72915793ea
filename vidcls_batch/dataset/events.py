"""What happened in a run beside its rows: every start, retry, kill, quarantine and commit, as JSON lines.

Each driver writes objects of its own below `events/`, whole and again as they grow, since object stores cannot append;
a finished run has them all in order in `events.jsonl`.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from vidcls_batch.errors import StorageError
from vidcls_batch.storage import Store

EVENTS = "events.jsonl"
FOLDER = "events"
WRITE_INTERVAL_S = 10.0
PART_BYTES = 1 << 20
# A store or a batch of files can fail in the same way a million times; after this many of a kind they are only counted.
MOST_OF_A_KIND = 5000
LOGGER = logging.getLogger("vidcls_batch.events")

Event = dict[str, Any]


class EventLog:
    """The events of one driver. Never fails a run: what cannot be written is told to `say`, once.

    Each event goes to the logger `vidcls_batch.events` as a JSON line, too.
    """

    def __init__(
        self,
        store: Store,
        *,
        driver: str,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._driver, self._say, self._clock = store, driver, say, clock
        self._lines: list[str] = []
        self._num_bytes = 0
        self._counts: Counter[str] = Counter()
        self._started = datetime.fromtimestamp(clock(), UTC).strftime("%Y%m%dT%H%M%S")
        self._part = 0
        self._written_at = clock()
        self._unwritten = False
        self._has_complained = False

    def add(self, kind: str, **facts: Any) -> None:
        """Note an event of now; `facts` are JSON values such as unit, clip_id, node, reason."""
        self._counts[kind] += 1
        if self._counts[kind] > MOST_OF_A_KIND:
            return
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        event = {"at": at, "event": kind, "run": self._store.uri, "driver": self._driver, **facts}
        line = json.dumps(event, ensure_ascii=False, default=str)
        LOGGER.info("%s", line)
        self._lines.append(line)
        self._num_bytes += len(line)
        self._unwritten = True
        if self._clock() - self._written_at >= WRITE_INTERVAL_S or self._num_bytes >= PART_BYTES:
            self.write()

    def close(self) -> None:
        """Write what is left, and how many were left out."""
        for kind, count in sorted(self._counts.items()):
            if count > MOST_OF_A_KIND:
                self._counts[kind] = 0
                self.add(kind, further=count - MOST_OF_A_KIND)
        self.write()

    def write(self) -> None:
        """Write this driver's events so far."""
        self._written_at = self._clock()
        if not self._unwritten:
            return
        name = f"{FOLDER}/{self._started}-{self._driver}-{self._part:04d}.jsonl"
        try:
            self._store.put(name, ("\n".join(self._lines) + "\n").encode())
        except (StorageError, OSError) as error:
            if not self._has_complained:
                self._has_complained = True
                self._say(f"Events could not be written: {error}")
            return
        self._unwritten = False
        if self._num_bytes >= PART_BYTES:
            self._part += 1
            self._lines.clear()
            self._num_bytes = 0


def read_events(store: Store) -> Iterator[Event]:
    """All events of the run, of all its drivers, by time. Raises StorageError where it has none."""
    parts = [part.path for part in store.list(FOLDER) if part.path.endswith(".jsonl")]
    if not parts:
        raise StorageError(f"{store.uri} has no events. Is it a run folder, and has it been run?")
    # Split by newlines only: text has more line breaks (U+2028, U+0085), and a clip's id may hold one.
    lines = [line for part in parts for line in store.read_bytes(part).decode().split("\n") if line]
    yield from sorted(map(_parsed, lines), key=lambda event: str(event.get("at", "")))


def gather_events(store: Store) -> None:
    """Write `events.jsonl`, all events of a run that is finished; nothing where it has none."""
    try:
        events = list(read_events(store))
    except StorageError:
        return
    lines = [json.dumps(event, ensure_ascii=False) for event in events]
    store.put(EVENTS, ("\n".join(lines) + "\n").encode())


def event_line(event: Event) -> str:
    """One event for people; what a terminal would take for a command or a new line is escaped.

    >>> event_line({"at": "2026-01-02T03:04:05.678+00:00", "event": "node_lost", "run": "r", "node": "n1"})
    '2026-01-02 03:04:05  node_lost          node=n1'
    """
    facts = "  ".join(f"{k}={v}" for k, v in event.items() if k not in ("at", "event", "run", "driver"))
    return printable(
        f"{str(event.get('at', ''))[:19].replace('T', ' ')}  {event.get('event', '?'):<17}  {facts}".rstrip()
    )


def printable(text: str) -> str:
    r"""Text of unknown origin for a terminal: control characters and odd line breaks as escapes.

    >>> printable("a\x1b[2Jb\n\u2028")
    'a\\x1b[2Jb\\n\\u2028'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _parsed(line: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        return {"event": "unreadable", "line": line[:200]}
    return event if isinstance(event, dict) else {"event": "unreadable", "line": line[:200]}
