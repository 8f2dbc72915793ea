"""The arithmetic of a pre-flight, on numbers worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.config import GroupConfig, ResourcesConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.preflight.checks import Observed, findings_of
from vidcls_batch.preflight.estimate import (
    DECODE_WORKER_BYTES,
    Needs,
    Work,
    failure_interval,
    infer_seconds,
    needs_of,
)
from vidcls_batch.preflight.prices import load_prices, run_cost
from vidcls_batch.preflight.rates import DRIVER_CLIPS_PER_S, EFFICIENCY, ClipCost, Fleet, cores_per_gpu, fleet_rate
from vidcls_batch.resources import Capacity, stage_resources
from vidcls_batch.types import DecodeLimits

MB = 1 << 20
EXAMPLE = Path(__file__).parents[2] / "configs/prices/example.yaml"
GPU = ClipCost(fetch_s=0.02, decode_s=0.1, infer_s=0.02, on_gpu=True)
CPU = ClipCost(fetch_s=0.0, decode_s=0.1, infer_s=0.3, on_gpu=False)
WORK = Work(
    num_clips=10_000,
    num_units=10,
    batch_size=16,
    frame_bytes=4 * MB,
    clip_bytes=1e6,
    row_bytes=900.0,
    evidence_bytes=512,
    clips_ahead=4,
)
NEEDS = Needs(1, 1, 1, 1, 1, 1, 1, 1, 1)
FINE = Observed(
    num_probed=20,
    num_failed=0,
    failures=(),
    most_failures=0.2,
    longest_s=10.0,
    largest_bytes=1000,
    slowest_decode_s=0.1,
    limits=DecodeLimits(),
    block_bytes=64 * MB,
    needs=NEEDS,
    decode_workers=2,
    classify_workers=1,
    memory_bytes=8 << 30,
    object_store_bytes=None,
)


def test_a_gpu_is_kept_busy_by_as_many_cores_as_decoding_is_slower():
    assert cores_per_gpu(GPU) == pytest.approx(5.0)
    assert cores_per_gpu(CPU) is None
    assert fleet_rate(GPU, Fleet(cores=4, gpus=1)).limit == "decode"
    assert fleet_rate(GPU, Fleet(cores=6, gpus=1)).limit == "inference"


def test_cores_that_do_both_are_shared_and_the_larger_part_is_named():
    rate = fleet_rate(CPU, Fleet(cores=2))
    assert rate.limit == "inference"
    assert rate.clips_per_s == pytest.approx(2 / 0.4 * EFFICIENCY)
    assert rate.hours(3600) == pytest.approx(1 / rate.clips_per_s)


def test_a_slow_store_and_the_one_driver_are_limits_too():
    assert fleet_rate(replace(GPU, fetch_s=5.0), Fleet(cores=8, gpus=1)).limit == "fetch"
    huge = fleet_rate(GPU, Fleet(cores=1e6, gpus=1e6))
    assert (huge.limit, huge.clips_per_s) == ("commit", DRIVER_CLIPS_PER_S)


def test_a_fleet_without_the_gpus_its_members_need_is_refused():
    with pytest.raises(ValueError, match="GPU"):
        fleet_rate(GPU, Fleet(cores=4))


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.floats(1, 1000), st.floats(1, 100))
def test_more_machines_are_never_slower(decode_s, infer_s, cores, gpus):
    cost = ClipCost(fetch_s=0.01, decode_s=decode_s, infer_s=infer_s, on_gpu=True)
    one, two = (fleet_rate(cost, Fleet(cores=n * cores, gpus=n * gpus)).clips_per_s for n in (1, 2))
    assert two >= one * 0.999


def test_memory_of_workers_and_of_the_object_store_count_blocks_in_flight():
    resources = stage_resources(
        ResourcesConfig(batch_size=16, classify_actors=2, decode_tasks=3),
        capacity=Capacity(num_cpus=4, num_gpus=0, private=True),
        frame_bytes=WORK.frame_bytes,
    )
    needs = needs_of(WORK, resources=resources, num_cpus=4, child_peak_bytes=100 * MB, classify_worker_bytes=900 * MB)
    assert needs.decode_worker_bytes == DECODE_WORKER_BYTES + 64 * MB + 5_000_000 + 100 * MB
    assert needs.object_store_bytes == (3 + 2 * 2 + 1) * 64 * MB
    assert needs.classify_worker_bytes == 900 * MB
    assert (needs.output_bytes, needs.evidence_bytes, needs.download_bytes) == (9_000_000, 5_120_000, 10_000_000_000)
    assert (needs.get_requests, needs.put_requests) == (10_000 + 40, 20)


def test_groups_hold_blocks_of_their_own_and_the_slowest_pool_sets_the_pace():
    groups = [GroupConfig(members=("a", "b"), actors=2), GroupConfig(members=("c",), actors=1)]
    resources = stage_resources(
        ResourcesConfig(batch_size=16, decode_tasks=3),
        capacity=Capacity(num_cpus=8, num_gpus=3, private=True),
        frame_bytes=WORK.frame_bytes,
        groups=groups,
    )
    needs = needs_of(WORK, resources=resources, num_cpus=8, child_peak_bytes=1, classify_worker_bytes=1)
    # Three decode tasks, two blocks at each of three actors, two written by the first pool, one after each stage.
    assert needs.object_store_bytes == (3 + 2 * 3 + 2 + 2) * 64 * MB
    # The first pool does 2 / 0.04 = 50 clips/s, the second 1 / 0.03 = 33: so do three GPUs of 0.09 s a clip.
    assert infer_seconds({"a": 0.01, "b": 0.03, "c": 0.03}, resources) == pytest.approx(0.09)


def test_a_few_failures_in_a_small_sample_say_little():
    low, high = failure_interval(1, of=5)
    assert low < 0.05
    assert high > 0.6
    assert failure_interval(0, of=0) == (0.0, 1.0)
    assert failure_interval(0, of=1000)[1] < 0.01


def test_machines_are_priced_and_one_whose_speed_is_not_known_says_so():
    prices = load_prices(EXAMPLE)
    priced = run_cost(prices, cost=CPU, needs=NEEDS, num_clips=100_000)
    by_name = {m.name: m for m in priced.machines}
    on_demand, spot = by_name["16 vCPUs on demand"], by_name["16 vCPUs spot"]
    assert on_demand.hours == spot.hours == pytest.approx(100_000 * 0.4 / 16 / EFFICIENCY / 3600)
    assert on_demand.cost == pytest.approx(0.70 * on_demand.hours)
    gpu = prices.machines[2]
    unknown = run_cost(
        prices.model_copy(update={"machines": (gpu.model_copy(update={"infer_ms": None}),)}),
        cost=CPU,
        needs=NEEDS,
        num_clips=100_000,
    ).machines[0]
    assert (unknown.cost, unknown.hours) == (None, None)
    assert "run vidcls plan on such a machine" in unknown.note


def test_a_gpu_that_its_cores_cannot_feed_is_priced_by_its_cores():
    machine = load_prices(EXAMPLE).machines[2]
    prices = load_prices(EXAMPLE).model_copy(update={"machines": (machine,)})
    slow_decode = replace(CPU, decode_s=1.0)
    (priced,) = run_cost(prices, cost=slow_decode, needs=NEEDS, num_clips=1000).machines
    assert priced.limit == "decode"
    assert priced.hours == pytest.approx(1000 / (16 * EFFICIENCY) / 3600)


def test_a_wrong_price_table_names_its_keys(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("source: x\nmachines: [{name: a, vcpus: 4, per_hour: -1, gpu: 1}]\n")
    with pytest.raises(ConfigError, match=r"machines\.0\.per_hour") as caught:
        load_prices(path)
    assert "machines.0.gpu" in str(caught.value)
    with pytest.raises(ConfigError, match="configs/prices"):
        load_prices(tmp_path / "none.yaml")


def test_a_run_without_trouble_has_no_findings():
    assert findings_of(FINE) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"num_failed": 5, "failures": ("a: no_video",)}, "sample_failures"),
        ({"block_bytes": 129 * MB}, "block_too_large"),
        ({"needs": replace(NEEDS, object_store_bytes=3 << 30)}, "object_store_too_small"),
        ({"needs": replace(NEEDS, object_store_bytes=2 * MB), "object_store_bytes": MB}, "object_store_too_small"),
        ({"needs": replace(NEEDS, classify_worker_bytes=9 << 30)}, "memory_too_small"),
    ],
)
def test_what_would_hurt_a_run_is_an_error_with_a_next_step(changes, code):
    (finding,) = findings_of(replace(FINE, **changes))
    assert (finding.severity, finding.code) == ("error", code)
    assert "resources." in finding.message or "--max-failures" in finding.message


@pytest.mark.parametrize(
    "changes",
    [
        {"num_failed": 4, "failures": ("a: no_video",)},
        {"longest_s": 0.9 * DecodeLimits().max_duration_s},
        {"slowest_decode_s": 55.0},
    ],
)
def test_what_may_hurt_a_few_clips_is_a_warning(changes):
    (finding,) = findings_of(replace(FINE, **changes))
    assert finding.severity == "warning"


def test_members_that_no_device_holds_together_are_an_error_with_their_groups():
    sizes = {"videomae": 6 * MB, "xclip": 5 * MB, "x3d": 3 * MB}
    assert findings_of(replace(FINE, member_bytes=sizes, device_bytes=14 * MB)) == []
    assert findings_of(replace(FINE, member_bytes=sizes)) == []
    (found,) = findings_of(replace(FINE, member_bytes=sizes, device_bytes=9 * MB))
    assert (found.severity, found.code) == ("error", "members_too_large")
    assert "2 groups, videomae + x3d (9 MiB); xclip (5 MiB)" in found.message
    assert "resources.groups: auto (2 devices at once)" in found.message
    (found,) = findings_of(replace(FINE, member_bytes=sizes, device_bytes=5 * MB))
    assert found.code == "member_too_large"


def test_groups_that_fit_are_fine_and_one_that_does_not_is_named():
    sizes = {"videomae": 6 * MB, "xclip": 5 * MB, "x3d": 3 * MB}
    seen = replace(FINE, member_bytes=sizes, device_bytes=9 * MB)
    assert findings_of(replace(seen, groups=[["xclip", "x3d"], ["videomae"]])) == []
    (found,) = findings_of(replace(seen, groups=[["xclip", "videomae"], ["x3d"]]))
    assert (found.severity, found.code) == ("error", "group_too_large")
    assert "xclip + videomae (11 MiB) does not fit a device, which has 9 MiB" in found.message
    assert "videomae + x3d (9 MiB); xclip (5 MiB)" in found.message
