"""What the advisor says a run waits for, from the seconds that its rows report."""

import pyarrow as pa
import pytest

from vidcls_batch.advisor import EVERY_S, FIRST_AFTER_S, LOOK_S, Advisor, Limit, Slots, Work, advise
from vidcls_batch.config import ResourcesConfig
from vidcls_batch.resources import Capacity, stage_resources

CLUSTER = Slots(decode=100, classify=4, fetches=500, on_gpu=True, shared_cores=None)
LAPTOP = Slots(decode=4, classify=4, fetches=20, on_gpu=False, shared_cores=4)


@pytest.mark.parametrize(
    ("work", "slots", "limit", "setting"),
    [
        (Work(100, decode_s=9500, infer_s=100), CLUSTER, Limit.DECODE, "resources.decode_tasks"),
        (Work(100, decode_s=4000, infer_s=380), CLUSTER, Limit.INFERENCE, "resources.classify_actors"),
        (Work(100, decode_s=9500, infer_s=395), CLUSTER, Limit.INFERENCE, "members.*.precision"),
        (Work(100, decode_s=1000, infer_s=50, fetch_s=45_000), CLUSTER, Limit.FETCH, "decode.range_above_mb"),
        (Work(100, decode_s=3000, infer_s=200, store_share=0.93), CLUSTER, Limit.OBJECT_STORE, "resources.batch_size"),
        (Work(100, decode_s=3000, infer_s=200, store_share=0.5), CLUSTER, Limit.NOTHING, "resources.batch_size"),
        (Work(100, decode_s=3000, infer_s=200, driver_s=85), CLUSTER, Limit.COMMIT, "output.unit_clips"),
        (Work(100, decode_s=300, infer_s=80), LAPTOP, Limit.CORES, "decode.backend: pyav-fast"),
        (Work(100, decode_s=80, infer_s=300), LAPTOP, Limit.CORES, "ensemble.cascade"),
        (Work(100, decode_s=60, infer_s=40, fetch_s=1900), LAPTOP, Limit.FETCH, "the store's region"),
        (Work(100, decode_s=10, infer_s=10), LAPTOP, Limit.NOTHING, "on their way"),
    ],
)
def test_the_limit_is_what_was_busy_and_a_setting_that_changes_it_is_named(work, slots, limit, setting):
    found = advise(work, slots)
    assert found.limit == limit
    assert setting in str(found)
    assert str(found).startswith("The run waits for ")


def test_every_setting_it_names_is_one():
    texts = {advise(Work(100, **work), slots).text for work in (
        {"decode_s": 9500}, {"infer_s": 395}, {"fetch_s": 45_000}, {"store_share": 1.0}, {"driver_s": 85}, {},
    ) for slots in (CLUSTER, LAPTOP)}  # fmt: skip
    from vidcls_batch.config import config_json_schema

    schema = config_json_schema()
    sections = {"resources": "ResourcesConfig", "decode": "DecodeConfig", "output": "OutputConfig",
                "ensemble": "EnsembleConfig", "sampling": "SamplingConfig"}  # fmt: skip
    named = {
        (section, key)
        for text in texts
        for word in text.replace(",", " ").replace("(", " ").replace(")", " ").replace(":", " ").split()
        for section, _, key in [word.partition(".")]
        if section in sections and key and "*" not in key
    }
    assert len(named) > 7
    for section, key in named:
        assert key in schema["$defs"][sections[section]]["properties"], (section, key)


def rows(clips: int, *, decode_ms: float = 0.0, infer_ms: float = 0.0, fetch_ms: float | None = 0.0) -> pa.Table:
    columns = {"decode_ms": decode_ms, "fetch_ms": fetch_ms, "infer_ms": infer_ms}
    return pa.table({n: pa.array([v] * clips, pa.float32()) for n, v in columns.items()})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def work_for(advisor: Advisor, clock: Clock, seconds: float, block: pa.Table) -> list[Limit]:
    """A block each second; the limits that were told."""
    told = []
    for _ in range(int(seconds)):
        clock.now += 1
        advisor.add(block, driver_s=0.01)
        if (found := advisor.advice()) is not None:
            told.append(found.limit)
    return told


def test_it_speaks_after_a_minute_then_when_the_limit_changes_or_every_ten_minutes():
    clock = Clock()
    advisor = Advisor(CLUSTER, clock=clock)
    slow_models = rows(38, infer_ms=100)
    assert work_for(advisor, clock, FIRST_AFTER_S, slow_models) == []
    assert work_for(advisor, clock, 2, slow_models) == [Limit.INFERENCE]
    assert work_for(advisor, clock, EVERY_S - 2 * LOOK_S, slow_models) == []
    assert work_for(advisor, clock, 3 * LOOK_S, slow_models) == [Limit.INFERENCE]
    slow_decoding = rows(95, decode_ms=1000, infer_ms=10)
    changed = work_for(advisor, clock, 3 * LOOK_S, slow_decoding)
    assert changed[-1] == Limit.DECODE
    assert len(changed) <= 2  # one look may see both


def test_time_before_the_first_rows_does_not_count():
    clock = Clock()
    advisor = Advisor(CLUSTER, clock=clock)
    clock.now = 500  # models are loaded
    assert advisor.advice() is None
    assert work_for(advisor, clock, FIRST_AFTER_S + 2, rows(38, infer_ms=100)) == [Limit.INFERENCE]


def test_rows_of_failed_clips_have_no_times():
    clock = Clock()
    advisor = Advisor(CLUSTER, clock=clock, store_share=lambda: 0.99)
    failed = pa.table({f"{n}_ms": pa.nulls(3, pa.float32()) for n in ("decode", "fetch", "infer")})
    assert work_for(advisor, clock, FIRST_AFTER_S + 2, failed) == [Limit.OBJECT_STORE]


def test_slots_are_those_of_the_stages():
    private = Capacity(num_cpus=4, num_gpus=0, private=True)
    resources = stage_resources(ResourcesConfig(), capacity=private, frame_bytes=2 << 20)
    assert Slots.of(resources, capacity=private, clips_ahead=4) == Slots(4, 4, 20, False, 4)
    joined = Capacity(num_cpus=64, num_gpus=2, private=False)
    config = ResourcesConfig(classify_gpus=1, decode_cpus=2)
    resources = stage_resources(config, capacity=joined, frame_bytes=2 << 20)
    assert Slots.of(resources, capacity=joined, clips_ahead=4) == Slots(32, 2, 160, True, None)
