"""Which clips a pre-flight looks at: a uniform sample of the plan, the same for the same seed."""

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from vidcls_batch.dataset.plan import Plan, read_unit
from vidcls_batch.stages.decode import CLIPS
from vidcls_batch.storage import Store


def sample_clips(plan: Plan, *, store: Store, units: Sequence[int], num_clips: int, seed: int) -> pa.Table:
    """Up to `num_clips` clips of `units`, each as likely as any other, as rows of `CLIPS` in a random order.

    Reads no unit that holds none of them. The order is random so that the first few are a sample too, where time runs
    out.
    """
    chooser = random.Random(f"{plan.fingerprint}:{seed}")
    starts, total = [], 0
    for unit in units:
        starts.append(total)
        total += plan.unit_size(unit)
    chosen = chooser.sample(range(total), min(num_clips, total))
    by_unit: dict[int, list[int]] = defaultdict(list)
    for position in sorted(chosen):
        index = bisect_right(starts, position) - 1
        by_unit[units[index]].append(position - starts[index])
    parts = [_rows_of(store, unit, positions) for unit, positions in by_unit.items()]
    clips = pa.concat_tables(parts) if parts else CLIPS.empty_table()
    order = list(range(len(clips)))
    chooser.shuffle(order)
    return clips.take(pa.array(order, pa.int64()))


def _rows_of(store: Store, unit: int, positions: Sequence[int]) -> pa.Table:
    rows = read_unit(store, unit).take(pa.array(positions, pa.int64()))
    unit_column = pa.array([unit] * len(rows), pa.int32())
    attempts = pa.array([1] * len(rows), pa.int32())
    return rows.append_column("unit", unit_column).append_column("attempts", attempts).select(CLIPS.names).cast(CLIPS)
