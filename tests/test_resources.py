import time

import pytest

from vidcls_batch.config import GroupConfig, ResourcesConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.resources import READ_CPUS, Capacity, StageResources, batch_size_for, group_by_memory, stage_resources

MB = 1 << 20


def settle(capacity: Capacity, **given: object):
    return stage_resources(ResourcesConfig.model_validate(given), capacity=capacity, frame_bytes=3 * MB)


def test_blocks_hold_about_sixty_four_megabytes_of_frames():
    config = ResourcesConfig()
    assert batch_size_for(4 * MB, config=config) == 16
    assert batch_size_for(500 * MB, config=config) == 1
    assert batch_size_for(1000, config=config) == 32
    assert batch_size_for(500 * MB, config=ResourcesConfig(batch_size=7)) == 7


def test_private_cpu_machine_may_fill_its_cores_with_either_stage():
    stages = settle(Capacity(num_cpus=2, num_gpus=0, private=True))
    assert (stages.decode_tasks, stages.classify_actors, stages.num_threads) == (2, 2, 1)
    assert stages.device == "cpu"


@pytest.mark.parametrize("cpus", [1, 2, 8, 64, 200])
def test_threads_of_all_classifiers_together_never_exceed_the_cores(cpus):
    stages = settle(Capacity(num_cpus=cpus, num_gpus=0, private=True))
    assert stages.classify_actors * stages.num_threads <= max(cpus, stages.num_threads)


def test_gpu_machine_gets_an_actor_per_gpu_from_the_start():
    stages = settle(Capacity(num_cpus=16, num_gpus=4, private=True))
    assert (stages.device, stages.classify_gpus, stages.classify_actors, stages.initial_actors) == ("cuda", 1.0, 4, 4)
    shared = settle(Capacity(num_cpus=16, num_gpus=4, private=True), classify_gpus=0.5)
    assert shared.classify_actors == 8


def test_gpus_are_reserved_also_where_the_cpu_computes():
    """A rehearsal on the machines of a run: its classifiers go where they will go."""
    stages = settle(Capacity(num_cpus=8, num_gpus=1, private=False), device="cpu", classify_gpus=0.5)
    assert (stages.device, stages.classify_gpus, stages.classify_actors, stages.initial_actors) == ("cpu", 0.5, 2, 2)
    stages = settle(Capacity(num_cpus=8, num_gpus=1, private=False), device="cpu")
    assert (stages.classify_gpus, stages.classify_actors) == (0.0, 4)
    alone = settle(Capacity(num_cpus=8, num_gpus=0, private=True), device="cpu", classify_gpus=1)
    assert alone.classify_gpus == 0.0


def test_autoscaling_cluster_may_ask_for_more_actors_than_it_has_gpus_now():
    stages = settle(Capacity(num_cpus=4, num_gpus=0, private=False), classify_gpus=1, classify_actors=8)
    assert (stages.device, stages.classify_actors, stages.initial_actors) == ("cuda", 8, 1)


def test_a_private_pool_keeps_its_size_and_a_shared_one_may_shrink():
    private = settle(Capacity(num_cpus=4, num_gpus=0, private=True))
    assert private.least_actors == private.classify_actors == 4
    assert settle(Capacity(num_cpus=8, num_gpus=2, private=False)).least_actors == 1


def test_stages_never_ask_for_equal_resources_so_that_ray_cannot_fuse_them():
    for cpus in (1.0, 0.5, 2.0):
        stages = settle(Capacity(num_cpus=8, num_gpus=0, private=False), decode_cpus=cpus, classify_cpus=cpus)
        assert stages.decode_cpus != stages.classify_cpus


def test_cuda_on_a_machine_without_gpu_is_refused():
    with pytest.raises(ConfigError, match="no GPU"):
        settle(Capacity(num_cpus=8, num_gpus=0, private=True), device="cuda")


@pytest.mark.parametrize(
    ("sizes", "capacity", "expected"),
    [
        ({"a": 1, "b": 2}, 3, [["a", "b"]]),
        ({"a": 2, "b": 2, "c": 2}, 3, [["a"], ["b"], ["c"]]),
        # First fit, largest first, would need three groups here.
        ({"a": 4, "b": 4, "c": 3, "d": 3, "e": 2, "f": 2, "g": 2}, 10, [["a", "b", "e"], ["c", "d", "f", "g"]]),
        ({}, 1, []),
    ],
)
def test_members_go_into_the_fewest_groups_that_fit(sizes, capacity, expected):
    found = group_by_memory(sizes, capacity=capacity)
    assert len(found) == len(expected)
    assert sorted(name for group in found for name in group) == sorted(sizes)
    assert all(sum(sizes[name] for name in group) <= capacity for group in found)
    assert all(group == [name for name in sizes if name in group] for group in found)


def test_a_dozen_members_are_grouped_at_once():
    sizes = {f"m{i}": 300 + 37 * (i % 5) for i in range(12)}  # 4,377 in all, three at most together
    started = time.perf_counter()
    groups = group_by_memory(sizes, capacity=1000)
    assert 5 <= len(groups) <= 6
    assert sorted(name for group in groups for name in group) == sorted(sizes)
    assert time.perf_counter() - started < 5


def test_a_member_too_large_by_itself_is_named():
    with pytest.raises(ConfigError, match="member b takes 9 MiB by itself, a device has 8 MiB"):
        group_by_memory({"a": 1 << 20, "b": 9 << 20}, capacity=8 << 20)


def grouped(capacity: Capacity, *actors: int | None, **given: object) -> StageResources:
    groups = [GroupConfig(members=(f"m{i}",), actors=asked) for i, asked in enumerate(actors)]
    config = ResourcesConfig.model_validate(given)
    return stage_resources(config, capacity=capacity, frame_bytes=3 * MB, groups=groups)


def test_one_group_is_no_group():
    capacity = Capacity(num_cpus=4, num_gpus=2, private=True)
    assert grouped(capacity, None) == settle(capacity)
    (pool,) = settle(capacity).pools
    assert (pool.members, pool.actors, pool.initial_actors, pool.least_actors) == ((), 2, 2, 2)


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_pools_of_groups_reserve_no_more_cpus_than_one_pool_would(cpus, private, groups):
    capacity = Capacity(num_cpus=cpus, num_gpus=0, private=private)
    alone, stages = settle(capacity), grouped(capacity, *[None] * groups)
    assert [pool.members for pool in stages.groups] == [(f"m{i}",) for i in range(groups)]
    assert all(pool.actors >= pool.initial_actors >= pool.least_actors >= 1 for pool in stages.groups)
    assert sum(pool.actors for pool in stages.groups) == stages.classify_actors == max(alone.classify_actors, groups)
    assert stages.classify_actors * stages.classify_cpus <= alone.classify_actors * alone.classify_cpus + 1e-9
    assert stages.classify_cpus != stages.decode_cpus


def test_gpus_are_shared_out_among_the_groups():
    machine = Capacity(num_cpus=16, num_gpus=5, private=True)
    assert [pool.actors for pool in grouped(machine, None, None).groups] == [3, 2]
    asked = grouped(machine, 1, 4)
    assert [(p.actors, p.initial_actors, p.least_actors) for p in asked.groups] == [(1, 1, 1), (4, 4, 4)]
    # More than there is room for now start with an even share, so that no group waits for the other's devices.
    assert [(p.actors, p.initial_actors) for p in grouped(machine, 9, 9).groups] == [(9, 3), (9, 2)]


def test_fewer_gpus_than_groups_are_refused_here_and_waited_for_on_a_cluster():
    with pytest.raises(ConfigError, match="2 groups of members need 2 GPUs at once, this machine has room for 1"):
        grouped(Capacity(num_cpus=8, num_gpus=1, private=True), None, None)
    assert len(grouped(Capacity(num_cpus=8, num_gpus=1, private=True), None, None, classify_gpus=0.5).groups) == 2
    growing = Capacity(num_cpus=8, num_gpus=0, private=False)
    pools = grouped(growing, None, None, device="cuda", classify_actors=8).groups
    assert [(p.actors, p.initial_actors, p.least_actors) for p in pools] == [(4, 1, 1), (4, 1, 1)]


@pytest.mark.parametrize("num_cpus", [2, 3, 4, 16, 64])
def test_on_a_joined_cluster_classifiers_leave_room_to_decode_and_read(num_cpus):
    stages = settle(Capacity(num_cpus=num_cpus, num_gpus=0, private=False))
    left = num_cpus - stages.initial_actors * stages.classify_cpus
    assert left >= stages.decode_cpus + 2 * READ_CPUS - 1e-9
