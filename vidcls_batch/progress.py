"""What a person sees while a run works: one live line on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from vidcls_batch.errors import Status

PLAIN_INTERVAL_S = 10.0


class RunProgress(Protocol):
    """Where a run reports to."""

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def start(self, *, total: int, done: int) -> None:
        """Clips in the plan, and those of them already committed."""
        ...

    def add(self, statuses: Mapping[str, int]) -> None:
        """Clips that came back just now, by status."""
        ...

    def finish(self) -> None:
        """The clips are through, or the run was stopped."""
        ...


class SilentProgress:
    """Says nothing: for tests and for callers with a display of their own."""

    def say(self, text: str) -> None:
        """Nothing."""

    def start(self, *, total: int, done: int) -> None:
        """Nothing."""

    def add(self, statuses: Mapping[str, int]) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


class ProgressLine:
    """Done/total, ok and failed by type, clips/s and ETA, as a line of text."""

    def __init__(self, *, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = done
        self.statuses: Counter[str] = Counter()
        self._clock = clock
        self._started = clock()

    def add(self, statuses: Mapping[str, int]) -> None:
        """Count clips that came back."""
        self.statuses.update(statuses)
        self.done += sum(statuses.values())

    @property
    def rate(self) -> float:
        """Clips per second since the start; the clips done before it do not count."""
        elapsed = self._clock() - self._started
        return self.statuses.total() / elapsed if elapsed > 0 else 0.0

    def __str__(self) -> str:
        share = f"{self.done / self.total:.0%}" if self.total else "100%"
        parts = [f"{self.done:,}/{self.total:,} clips ({share})", f"ok {self.statuses[Status.OK]:,}"]
        failed = [f"{name} {count:,}" for name, count in sorted(self.statuses.items()) if name != Status.OK]
        parts += failed or ["failed 0"]
        parts.append(f"{self.rate:.1f} clips/s")
        if self.rate > 0:
            parts.append(f"ETA {format_duration((self.total - self.done) / self.rate)}")
        return " · ".join(parts)


class ConsoleProgress:
    """One live line where stderr is a terminal, else a plain line every PLAIN_INTERVAL_S."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._line: ProgressLine | None = None
        self._bar: Progress | None = None
        self._last_print = 0.0

    def say(self, text: str) -> None:
        """Print a line above the live one."""
        self._console.print(text, markup=False)

    def start(self, *, total: int, done: int) -> None:
        """Begin to count."""
        self._line = ProgressLine(total=total, done=done)
        self._last_print = time.monotonic()
        if self._console.is_terminal:
            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(str(self._line), total=total, completed=done)
            self._bar.start()

    def add(self, statuses: Mapping[str, int]) -> None:
        """Count clips and refresh the line."""
        if self._line is None:
            return
        self._line.add(statuses)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._line.done, description=str(self._line))
        elif time.monotonic() - self._last_print >= PLAIN_INTERVAL_S:
            self._last_print = time.monotonic()
            self.say(str(self._line))

    def finish(self) -> None:
        """Leave the last state of the line standing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._line is not None:
            self.say(str(self._line))
            self._line = None

    def about(self, run: str) -> None:
        """Nothing: people know what they started."""

    def failed(self, error: Exception, *, exit_code: int) -> None:
        """The command ends by an error."""
        self._console.print(f"Error: {error}", style="red", markup=False)

    def interrupted(self, *, resume: str | None, exit_code: int) -> None:
        """The command was stopped; `resume` is what goes on with it."""
        self._console.print("Stopped. What is committed stays committed.", markup=False)
        if resume:
            text = f"To go on where it stopped, run the same command again:  {resume} ..."
            self._console.print(text, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


def format_duration(seconds: float) -> str:
    """`47s`, `12m05s`, `3h20m`.

    >>> format_duration(725)
    '12m05s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
