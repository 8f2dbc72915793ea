"""What a run waits for, and which setting changes that: arithmetic over the seconds that its rows report."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from vidcls_batch.resources import Capacity, StageResources

FIRST_AFTER_S = 60.0  # models are loaded and the first blocks through
EVERY_S = 600.0  # again, or as soon as something else is the limit
LOOK_S = 60.0
# A stage that works so much of the time is what the others wait for; the rest is hand-over.
BUSY = 0.8
STORE_FULL = 0.8
DRIVER_BUSY = 0.7


class Limit(StrEnum):
    """What a run waits for."""

    DECODE = "decode"
    FETCH = "fetch"
    INFERENCE = "inference"
    CORES = "cores"
    OBJECT_STORE = "object store"
    COMMIT = "commit"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Slots:
    """What can work at once."""

    decode: int
    classify: int
    fetches: int
    on_gpu: bool
    shared_cores: int | None  # of a machine whose cores decode and classify both; None where each has its own

    @classmethod
    def of(cls, resources: StageResources, *, capacity: Capacity, clips_ahead: int) -> "Slots":
        """Of a run on this cluster; `clips_ahead` are fetched by each decode task beside the one in use."""
        fits = max(1, int(capacity.num_cpus / resources.decode_cpus)) if resources.decode_cpus else 1
        decode = fits if resources.decode_tasks is None else min(resources.decode_tasks, fits)
        if capacity.private and resources.decode_tasks is not None:
            decode = resources.decode_tasks  # a private cluster declares more CPUs than there are cores
        shared = capacity.num_cpus if capacity.private and resources.device == "cpu" else None
        on_gpu = resources.device == "cuda"
        return cls(decode, resources.classify_actors, decode * (1 + clips_ahead), on_gpu, shared)


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds that the clips of a while took, summed over all workers, and how long the while was."""

    wall_s: float
    decode_s: float = 0.0
    fetch_s: float = 0.0
    infer_s: float = 0.0
    driver_s: float = 0.0  # in collecting and committing rows
    store_share: float | None = None  # of the object store that is full; None where nobody knows


@dataclass(frozen=True, slots=True)
class Advice:
    """What limits the run, and what to do about it."""

    limit: Limit
    text: str

    def __str__(self) -> str:
        return self.text


def advise(work: Work, slots: Slots) -> Advice:
    """The limit of a run from what was busy; where several are, the one nearest the table."""
    decode, infer = work.decode_s / work.wall_s / slots.decode, work.infer_s / work.wall_s / slots.classify
    fetch, driver = work.fetch_s / work.wall_s / slots.fetches, work.driver_s / work.wall_s
    busy = f"decode workers {_share(decode)}, classifiers {_share(infer)}, fetches {_share(fetch)} busy"
    if driver >= DRIVER_BUSY:
        return _advice(
            Limit.COMMIT,
            f"the driver commits {_share(driver)} of the time",
            "larger output.unit_clips (fewer, larger puts), a store nearer to the driver, fewer stored columns "
            "(output.member_*), or several runs over parts of the manifest",
        )
    if slots.shared_cores is not None and (work.decode_s + work.infer_s) / work.wall_s / slots.shared_cores >= BUSY:
        total = work.decode_s + work.infer_s
        parts = f"decoding {_share(work.decode_s / total)}, models {_share(work.infer_s / total)} of that"
        return _advice(Limit.CORES, f"all cores work ({parts})", _for_cores(work))
    if infer >= BUSY:
        more = "more GPUs (resources.classify_actors is the most that are used)" if slots.on_gpu else "more cores"
        return _advice(
            Limit.INFERENCE,
            f"models ({busy})",
            f"{more}, members.*.precision: bf16, fewer sampling.views, or ensemble.cascade",
        )
    if work.store_share is not None and work.store_share >= STORE_FULL:
        return _advice(
            Limit.OBJECT_STORE,
            f"the object store is {_share(work.store_share)} full of frames ({busy})",
            "smaller resources.batch_size or decode.short_side, more object store memory, or fewer decode workers "
            "(resources.decode_tasks)",
        )
    if decode >= BUSY:
        return _advice(
            Limit.DECODE,
            f"decoding ({busy})",
            "more CPUs or machines that decode (resources.decode_tasks where it is set), or decode.backend: pyav-fast",
        )
    if fetch >= BUSY:
        return _advice(
            Limit.FETCH,
            f"the videos' store ({busy})",
            "machines in the store's region, more decode workers (each fetches some clips ahead), "
            "or decode.range_above_mb for long files",
        )
    return _advice(
        Limit.NOTHING,
        f"nothing in particular ({busy})",
        "work is short of blocks: larger resources.batch_size, or machines that are still on their way",
    )


class Advisor:
    """Gathers rows as they come back and says from time to time what the run waits for."""

    def __init__(
        self,
        slots: Slots,
        *,
        store_share: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._store_share = store_share
        self._clock = clock
        self._since: float | None = None  # the first row: before it models are loaded
        self._told_at: float | None = None
        self._told: Limit | None = None
        self._sums = {"decode_s": 0.0, "fetch_s": 0.0, "infer_s": 0.0, "driver_s": 0.0}

    def add(self, rows: pa.Table, *, driver_s: float) -> None:
        """Rows that came back, and the seconds that collecting and committing them took."""
        if self._since is None:
            self._since = self._clock()
            return  # the work of the first rows lies before the clock's start
        self._sums["driver_s"] += driver_s
        for name in ("decode", "fetch", "infer"):
            self._sums[f"{name}_s"] += sum(filter(None, rows[f"{name}_ms"].to_pylist())) / 1000

    def advice(self) -> Advice | None:
        """Advice when it is time for one: after a minute, then every ten or when the limit has changed."""
        now = self._clock()
        if self._since is None or now - self._since < (FIRST_AFTER_S if self._told_at is None else LOOK_S):
            return None
        sums = self._sums
        work = Work(
            wall_s=max(now - self._since, 1e-3),
            decode_s=sums["decode_s"],
            fetch_s=sums["fetch_s"],
            infer_s=sums["infer_s"],
            driver_s=sums["driver_s"],
            store_share=self._store_share(),
        )
        self._since, self._sums = now, dict.fromkeys(sums, 0.0)  # each look is at a minute of its own
        found = advise(work, self._slots)
        if self._told_at is not None and found.limit == self._told and now - self._told_at < EVERY_S:
            return None
        self._told_at, self._told = now, found.limit
        return found


def _for_cores(work: Work) -> str:
    if work.infer_s > work.decode_s:
        return "more cores or a GPU, members.*.precision: bf16, fewer sampling.views, or ensemble.cascade"
    return "more cores, or decode.backend: pyav-fast"


def _advice(limit: Limit, waits_for: str, change: str) -> Advice:
    return Advice(limit, f"The run waits for {waits_for}. What would change that: {change}")


def _share(value: float) -> str:
    return f"{value:.0%}"
