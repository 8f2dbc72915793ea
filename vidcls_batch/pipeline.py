"""The Ray Data assembly, and the only place that knows Ray Data: units in, result tables out."""

import json
import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.exceptions import RayError, RayTaskError

from vidcls_batch.config import ResourcesConfig
from vidcls_batch.dataset.plan import read_unit
from vidcls_batch.errors import ClusterError
from vidcls_batch.metrics import stage_metrics, task_attempt
from vidcls_batch.resources import READ_CPUS, READ_TASKS, Capacity, StageResources, logical_cpus
from vidcls_batch.stages.classify import BlockClassifier, ClassifySettings, DeviceLostError
from vidcls_batch.stages.decode import CLIPS, BlockDecoder, DecodeSettings
from vidcls_batch.stages.member_groups import INFER_MS, member_groups
from vidcls_batch.storage import StorageOptions, open_store

# A worker that dies takes its block down; the block is tried again so often before it is left to the next pass.
# Ray's default is for ever, which a clip that kills its worker turns into an endless loop.
BLOCK_RETRIES = 2
BLOCK_FACTS = b"vidcls.block"  # metadata of a block's schema; never written to the table
MOST_ACTORS_AT_ONCE = 1000
MOST_SOURCE_BLOCKS = 2000
OOM_KILL = "OOM kill reason:"  # so Ray begins the line of a worker that it killed for memory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UnitShare:
    """Clips of one unit to label: all of them, or `clip_ids`. `route` is the unit number their rows carry."""

    unit: int
    attempts: int
    clip_ids: tuple[str, ...] | None = None
    route: int | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """What the workers of a pipeline do."""

    run_uri: str
    storage: StorageOptions
    decode: DecodeSettings
    classify: ClassifySettings


@dataclass(slots=True)
class BlockErrors:
    """Blocks that Ray Data gave up on, and the last reason; their clips come back in the next pass."""

    count: int = 0
    last: str = ""
    told: Callable[[str], None] | None = None

    def add(self, reason: str) -> None:
        """Count one lost block."""
        self.count += 1
        self.last = reason
        if self.told is not None:
            self.told(reason)


@contextmanager
def ray_cluster(address: str | None, *, resources: ResourcesConfig) -> Iterator[Capacity]:
    """Join the cluster at `address`, or start a private one on this machine; leave or stop it at the end."""
    if ray.is_initialized():  # a test's or notebook's cluster: theirs to shut down
        yield _capacity(private=False)
        return
    # Ray reads these when its processes start; workers at nice 15 starve beside anything else on the machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The default of 30 s is not enough for the raylet's start on a busy machine.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "240")
    # A worker that Ray kills for its memory does not count as a try by default: a clip that eats all of a node's memory
    # would be tried for ever. Given up, its block comes back in the next pass in smaller ones.
    os.environ.setdefault("RAY_task_oom_retries", str(BLOCK_RETRIES))
    on_sigterm = signal.getsignal(signal.SIGTERM)
    num_cpus = resources.num_cpus or len(os.sched_getaffinity(0))
    try:
        _init_ray(address, num_cpus=num_cpus, object_store_mb=resources.object_store_mb)
    except Exception as error:  # Ray raises bare Exception, RuntimeError, ConnectionError, ... for a failed start
        where = "a private Ray cluster could not be started" if address is None else f"no Ray cluster at {address}"
        raise ClusterError(f"{where}: {error}. Nothing was labeled; run the same command again.") from error
    if address is None:
        capacity = Capacity(num_cpus=num_cpus, num_gpus=ray.cluster_resources().get("GPU", 0.0), private=True)
    else:
        capacity = _capacity(private=False)
    if threading.current_thread() is threading.main_thread():
        # Ray puts a handler of its own in place that ends the driver without a word about how to resume.
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield capacity
    finally:
        ray.shutdown()


def object_store_share() -> float | None:
    """Which share of the cluster's object stores is full; None where Ray does not tell."""
    try:
        total, free = (r.get("object_store_memory", 0.0) for r in (ray.cluster_resources(), ray.available_resources()))
    except Exception:  # Ray raises its own by the dozen when the head is slow: no reason to end a run
        return None
    return 1 - free / total if total else None


def _init_ray(address: str | None, *, num_cpus: int, object_store_mb: int | None) -> None:
    if address is not None:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        return
    ray.init(
        address="local",
        num_cpus=logical_cpus(num_cpus),
        object_store_memory=None if object_store_mb is None else object_store_mb << 20,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def label_shares(
    shares: Sequence[UnitShare], *, stages: Stages, resources: StageResources, errors: BlockErrors
) -> Generator[pa.Table, None, None]:
    """Result tables (`schema.result_schema`) of the clips in `shares`, in no order; blocks that die are in `errors`.

    Raises ClusterError when Ray gives up on the whole: a classifier that cannot start, a head that is gone.
    """
    with warnings.catch_warnings():
        # Retry limits still travel through ray_remote_args in this version, which warns of 2.64; so does a stage that
        # may run more tasks than there are units.
        warnings.simplefilter("ignore")
        dataset = build_dataset(shares, stages=stages, resources=resources)
    handler = _LostBlocks(errors)
    logger = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except RayError as error:
        raise ClusterError(
            f"Ray ended the run: {death_reason(error)}. The finished units are committed; mend the cause (a library "
            "or a checkpoint that the workers lack, memory, the head), then run the same command again."
        ) from error
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


def build_dataset(shares: Sequence[UnitShare], *, stages: Stages, resources: StageResources) -> Dataset:
    """read unit -> blocks of `batch_size` clips -> decode tasks -> classifier actors, a pool for each group of members.

    Nothing runs until iterated.
    """
    _configure_context(DataContext.get_current())
    items = [
        {
            "unit": share.unit,
            "attempts": share.attempts,
            "clip_ids": list(share.clip_ids or ()),
            "route": share.unit if share.route is None else share.route,
        }
        for share in shares
    ]
    decode_needs: dict[str, Any] = {}
    if resources.decode_memory_mb is not None:
        decode_needs["memory"] = resources.decode_memory_mb << 20
    if resources.decode_labels:
        decode_needs["label_selector"] = dict(resources.decode_labels)
    dataset = (
        ray.data.from_items(items, override_num_blocks=min(len(items), MOST_SOURCE_BLOCKS))
        .map_batches(
            _read_shares,
            fn_kwargs={"run_uri": stages.run_uri, "storage": stages.storage},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=READ_CPUS,
            compute=TaskPoolStrategy(size=READ_TASKS),
        )
        .repartition(target_num_rows_per_block=resources.batch_size)
        .map_batches(
            _decode_block,
            fn_kwargs={"pickled_settings": pickle.dumps(stages.decode)},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=resources.decode_cpus,
            compute=TaskPoolStrategy(size=resources.decode_tasks),
            max_retries=BLOCK_RETRIES,
            **decode_needs,
        )
    )
    for settings, pool in zip(_settings_of_pools(stages.classify, resources), resources.pools, strict=True):
        # `map_batches` refuses whole blocks (batch_size=None) where GPUs are asked for; a batch size would have it join
        # blocks that are cut to the size already. Ray's own `map_groups` goes this way, for the same reason.
        dataset = dataset.map_batches_internal(
            _ClassifierActor,
            fn_constructor_kwargs={"settings": settings},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=resources.classify_cpus,
            num_gpus=resources.classify_gpus,
            compute=ActorPoolStrategy(
                min_size=pool.least_actors,
                max_size=pool.actors,
                initial_size=pool.initial_actors,
                max_tasks_in_flight_per_actor=2,
            ),
            max_restarts=-1,
            max_task_retries=BLOCK_RETRIES,
            **_classifier_needs(resources),
        )
    return dataset


def _settings_of_pools(settings: ClassifySettings, resources: StageResources) -> list[ClassifySettings]:
    if not resources.groups:
        return [settings]
    names = [member.name for member in settings.members]
    return [settings.in_group(group) for group in member_groups(names, [pool.members for pool in resources.groups])]


def _classifier_needs(resources: StageResources) -> dict[str, Any]:
    needs: dict[str, Any] = {}
    if resources.accelerator_type is not None:
        needs["accelerator_type"] = resources.accelerator_type
    if resources.classify_labels:
        needs["label_selector"] = dict(resources.classify_labels)
    return needs


def run_where_classifiers_run(work: Callable[[], T], *, resources: StageResources) -> T:
    """What `work` gives in a worker that gets what one classifier would; waits until there is one.

    Raises what `work` raises, and ClusterError when its worker dies each time.
    """

    def task() -> T:
        return work()

    remote = ray.remote(task).options(
        num_cpus=resources.classify_cpus,
        num_gpus=resources.classify_gpus,
        max_retries=BLOCK_RETRIES,
        **_classifier_needs(resources),
    )
    try:
        found: T = ray.get(remote.remote())
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise ClusterError(
            f"the worker that measured the members was lost: {death_reason(error)}. Nothing was labeled; give a member "
            "less to do at once (resources.batch_size), or say the groups yourself (resources.groups)"
        ) from error
    return found


def operator_names(dataset: Dataset) -> list[str]:
    """Physical operators in order; what the topology test and `vidcls plan` look at."""
    from ray.data._internal.logical.optimizers import get_execution_plan

    planned = get_execution_plan(dataset._logical_plan)
    plan = planned[0] if isinstance(planned, tuple) else planned
    return [operator.name for operator in plan.dag.post_order_iter()]


def _configure_context(context: DataContext) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the run has a progress line of its own
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block that cannot be had must not end the run: its clips come back in the next pass, in smaller blocks.
    context.max_errored_blocks = -1
    # The default (30 min without progress) would kill a run that waits for machines.
    context.execution_no_progress_timeout_s = -1
    # The default is one more at a time, each after the last has loaded its models.
    context.autoscaling_config.actor_pool_max_upscaling_delta = MOST_ACTORS_AT_ONCE


def _capacity(*, private: bool) -> Capacity:
    total = ray.cluster_resources()
    return Capacity(num_cpus=int(total.get("CPU", 1)), num_gpus=total.get("GPU", 0.0), private=private)


def _read_shares(items: pa.Table, *, run_uri: str, storage: StorageOptions) -> Iterator[pa.Table]:
    store = open_store(run_uri, options=storage)
    for item in items.to_pylist():
        unit = read_unit(store, item["unit"])
        if item["clip_ids"]:
            unit = unit.filter(pa.compute.is_in(unit["clip_id"], value_set=pa.array(item["clip_ids"], pa.string())))
        route = pa.array([item["route"]] * len(unit), pa.int32())
        attempts = pa.array([item["attempts"]] * len(unit), pa.int32())
        yield unit.append_column("unit", route).append_column("attempts", attempts).select(CLIPS.names).cast(CLIPS)


def _decode_block(clips: pa.Table, *, pickled_settings: bytes) -> pa.Table:
    started = time.perf_counter()
    decoder = _worker_decoder(pickled_settings)
    decoded = decoder(clips)
    return _told(decoded, stage="decode", started=started, deaths=decoder.take_deaths())


def _told(
    rows: pa.Table,
    *,
    stage: str,
    started: float,
    deaths: list[dict[str, str]],
    before: bytes = b"[]",
    usage: dict[str, float] | None = None,
    counted: pa.Table | None = None,
) -> pa.Table:
    """Count the block (or `counted`) for Prometheus, and write on it what the driver cannot see from afar."""
    attempt = task_attempt()
    stage_metrics(stage).block_done(
        rows if counted is None else counted,
        seconds=time.perf_counter() - started,
        attempt=attempt,
        deaths=Counter(d["status"] for d in deaths),
    )
    node = ray.get_runtime_context().get_node_id()
    fact = {"stage": stage, "node": node, "pid": os.getpid(), "attempt": attempt, "deaths": deaths, "usage": usage}
    return rows.replace_schema_metadata({BLOCK_FACTS: json.dumps([*json.loads(before), fact])})


def block_facts(rows: pa.Table) -> list[dict[str, Any]]:
    """What workers wrote on a block: stage, node, pid, attempt (0 is the first), deaths of decoder children, and a
    classifier's `WorkerUsage`.
    """
    facts: list[dict[str, Any]] = json.loads((rows.schema.metadata or {}).get(BLOCK_FACTS, b"[]"))
    return facts


@lru_cache(maxsize=1)
def _worker_decoder(pickled_settings: bytes) -> BlockDecoder:
    # Ray reuses worker processes between tasks; so must the decoder child, whose start costs as much as ten clips.
    # The settings come pickled because equal bytes are what a cache can tell apart.
    return BlockDecoder(pickle.loads(pickled_settings))


class _ClassifierActor:
    def __init__(self, settings: ClassifySettings) -> None:
        self._classifier = BlockClassifier(settings)

    def __call__(self, block: pa.Table) -> pa.Table:
        started = time.perf_counter()
        before = (block.schema.metadata or {}).get(BLOCK_FACTS, b"[]")
        try:
            rows = self._classifier(block)
            usage = asdict(self._classifier.usage())
            own = _own_time(rows, block)
            return _told(rows, stage="classify", started=started, deaths=[], before=before, usage=usage, counted=own)
        except DeviceLostError as error:
            # Only a new process gets the device back: Ray restarts the actor and tries the block again.
            logging.getLogger(__name__).error("%s", error)
            os._exit(1)


def _own_time(rows: pa.Table, block: pa.Table) -> pa.Table:
    """The rows' time without that of the groups before, which have told of theirs."""
    if INFER_MS not in block.column_names:
        own = rows[INFER_MS]
    else:
        own = pa.compute.subtract(rows[INFER_MS], block[INFER_MS])
    return pa.table({INFER_MS: own.filter(pa.compute.greater(own, 0))})


class _LostBlocks(logging.Handler):
    """Counts the blocks Ray Data gives up on; it tells of them in its log only."""

    def __init__(self, errors: BlockErrors) -> None:
        super().__init__(level=logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._errors.add(death_reason(record.exc_info[1]))


def death_reason(error: BaseException) -> str:
    """Why a worker was killed for memory; else the last line: Ray puts whole tracebacks of workers into its messages,
    and the worker's own error there.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for_memory = [line.removeprefix(OOM_KILL) for line in lines if line.startswith(OOM_KILL)]
    if for_memory:
        return f"{type(error).__name__}: killed because its node ran out of memory: {for_memory[-1].strip()}"
    return f"{type(error).__name__}: {(lines or [''])[-1]}"
