"""How fast a fleet labels clips, and what holds it back: pure arithmetic on seconds per clip."""

from dataclasses import dataclass

# What a run reaches of the rates below (docs/performance.md: run against a bare loop).
EFFICIENCY = 0.84
# What one driver commits (benchmarks/scale_simulation.py, docs/scaling.md).
DRIVER_CLIPS_PER_S = 3000.0


@dataclass(frozen=True, slots=True)
class ClipCost:
    """Seconds per clip, means over a sample."""

    fetch_s: float  # wall of one fetch
    decode_s: float  # of one core
    infer_s: float  # of one core on a CPU, of one device on GPUs
    on_gpu: bool
    fetches_at_once: int = 5  # of one decode worker: the clip in use and those ahead


@dataclass(frozen=True, slots=True)
class Fleet:
    """Cores and devices that work at once."""

    cores: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Clips per second a fleet reaches, and the part that decides it."""

    clips_per_s: float
    limit: str  # decode, inference, fetch or commit
    ceilings: dict[str, float]  # clips per second each part alone would allow

    def hours(self, num_clips: int) -> float:
        """Wall time of so many clips."""
        return num_clips / self.clips_per_s / 3600


def fleet_rate(cost: ClipCost, fleet: Fleet) -> Rate:
    """The rate of a fleet all of whose parts work at once. Raises ValueError for a fleet without what a stage needs.

    >>> cost = ClipCost(fetch_s=0.01, decode_s=0.05, infer_s=0.01, on_gpu=True)
    >>> fleet_rate(cost, Fleet(cores=4, gpus=1)).limit
    'decode'
    """
    if fleet.cores <= 0 or (cost.on_gpu and fleet.gpus <= 0):
        raise ValueError(
            f"{fleet} cannot decode and classify {cost}: it needs cores, and GPUs where inference is there"
        )
    workers = fleet.cores
    ceilings = {"commit": DRIVER_CLIPS_PER_S}
    if cost.on_gpu:
        ceilings["inference"] = _per_second(fleet.gpus, cost.infer_s)
        ceilings["decode"] = _per_second(fleet.cores, cost.decode_s)
    else:
        # One set of cores does both: the larger share of a clip's seconds is what to shorten.
        together = _per_second(fleet.cores, cost.decode_s + cost.infer_s)
        ceilings["decode" if cost.decode_s >= cost.infer_s else "inference"] = together
        workers = fleet.cores * cost.decode_s / max(cost.decode_s + cost.infer_s, 1e-9)
    ceilings["fetch"] = _per_second(max(1.0, workers) * cost.fetches_at_once, cost.fetch_s)
    limit = min(ceilings, key=lambda part: ceilings[part])
    reached = ceilings[limit] if limit == "commit" else ceilings[limit] * EFFICIENCY
    return Rate(clips_per_s=reached, limit=limit, ceilings=ceilings)


def cores_per_gpu(cost: ClipCost) -> float | None:
    """Decoding cores that keep one GPU busy; None where inference is not on GPUs."""
    return cost.decode_s / cost.infer_s if cost.on_gpu and cost.infer_s > 0 else None


def _per_second(workers: float, seconds: float) -> float:
    return workers / max(seconds, 1e-9)
