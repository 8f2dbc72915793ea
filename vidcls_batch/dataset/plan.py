"""The frozen plan of a run: its clips cut into work units, made once and the same for every driver."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from vidcls_batch.config import Config
from vidcls_batch.dataset.claim import (
    CLAIM,
    MANIFEST_DIGEST,
    Claim,
    claim_folder,
    read_claim,
    require_same_run,
    with_digest,
)
from vidcls_batch.dataset.manifest import CLIP_SCHEMA, Manifest, check_manifest, read_clips, read_header
from vidcls_batch.dataset.manifest_source import ManifestSource, manifest_version, open_manifest
from vidcls_batch.dataset.puts import put_all
from vidcls_batch.dataset.run_record import Json, RunIdentity, differences, run_identity
from vidcls_batch.errors import ManifestError, RunMismatchError, StorageError
from vidcls_batch.storage import StorageOptions, Store

PLAN = "plan/plan.json"
PLAN_FOLDER = "plan"
PREDICTIONS_FOLDER = "predictions"
_COMPARED_CLIPS = 1_000_000  # up to here the difference of two listings is worth its time


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to label. Unit u holds `unit_clips` clips of the manifest's order, the last one what is left."""

    fingerprint: str
    num_clips: int
    num_units: int
    unit_clips: int
    manifest_uri: str
    manifest_digest: str
    manifest_version: str  # cheap mark of the manifest's content, "" where there is none
    extra_schema: pa.Schema = field(repr=False)  # the manifest's other columns

    @property
    def schema(self) -> pa.Schema:
        """Schema of each unit's table."""
        return pa.schema([*CLIP_SCHEMA, *self.extra_schema])

    def unit_size(self, unit: int) -> int:
        """How many clips a unit holds. Raises IndexError for a unit that is not planned."""
        if not 0 <= unit < self.num_units:
            raise IndexError(f"unit {unit} of {self.num_units}")
        return min(self.unit_clips, self.num_clips - unit * self.unit_clips)


def unit_path(unit: int) -> str:
    """Where a unit's clips lie in the run folder."""
    return f"{PLAN_FOLDER}/unit-{unit:06d}.parquet"


def prediction_path(unit: int) -> str:
    """Where a unit's committed rows lie in the run folder."""
    return f"{PREDICTIONS_FOLDER}/unit-{unit:06d}.parquet"


def make_plan(
    config: Config,
    *,
    store: Store,
    options: StorageOptions,
    identity: RunIdentity | None = None,
    reserved: frozenset[str],
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Plan the run, finish a plan that was cut short, or confirm the one that is there.

    Two passes over the manifest: check every row, then write the units; `progress` gets the rows done in each. Any
    number of drivers may do this at once. Raises ManifestError before anything is written, RunMismatchError when the
    folder belongs to another config or manifest, StorageError. `identity` is the config's alone unless given.
    """
    identity = run_identity(config) if identity is None else identity
    claim = read_claim(store)
    require_same_run(store, identity)
    plan = load_plan(store)
    version = manifest_version(config.manifest, options=options)
    if plan is not None and version and version == plan.manifest_version:
        return plan
    with open_manifest(config.manifest, options=options) as source:
        if claim is not None and claim.identity.values[MANIFEST_DIGEST] != source.digest:
            raise RunMismatchError(_manifest_changed(store, claim, source))
        if plan is not None:
            return plan
        manifest = read_header(source, config.manifest.columns, reserved=reserved)
        num_clips = check_manifest(manifest, progress=progress)
        facts: dict[str, Json] = {"uri": source.uri, "num_bytes": source.num_bytes, "num_clips": num_clips}
        claim = Claim(with_digest(identity, source.digest), facts)
        plan = Plan(
            fingerprint=claim.fingerprint,
            num_clips=num_clips,
            num_units=-(-num_clips // config.output.unit_clips),
            unit_clips=config.output.unit_clips,
            manifest_uri=source.uri,
            manifest_digest=source.digest,
            manifest_version=version,
            extra_schema=manifest.extra_schema,
        )
        store.create()
        claim_folder(store, claim)
        _write_units(store, plan, manifest, progress=progress)
        if manifest_version(config.manifest, options=options) != version:
            _discard_units(store)
            raise ManifestError(f"The manifest {source.uri} changed while it was planned. Use a new run folder.")
    return freeze(store, plan)


def load_plan(store: Store) -> Plan | None:
    """The frozen plan of a run folder, None where planning has not ended. Raises StorageError when it is damaged."""
    try:
        data = store.read_bytes(PLAN)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record.pop("extra_schema"))))
        record.pop("extra_columns")
        return Plan(extra_schema=schema, **record)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StorageError(f"{store.uri}/{PLAN} is damaged ({error}); this run folder cannot be resumed.") from error


def require_plan(store: Store) -> Plan:
    """The frozen plan. Raises StorageError where the folder holds none."""
    plan = load_plan(store)
    if plan is None:
        raise StorageError(
            f"{store.uri} is no run folder: it has no {PLAN}. Check the path and endpoint, or start a run: vidcls run"
        )
    return plan


def read_unit(store: Store, unit: int) -> pa.Table:
    """The clips of a unit, in order: clip_id, uri, start_s, end_s and the manifest's other columns."""
    try:
        return pq.read_table(BytesIO(store.read_bytes(unit_path(unit))), use_threads=False)
    except pa.ArrowException as error:
        raise StorageError(f"{store.uri}/{unit_path(unit)} is damaged: {error}") from error


def _write_units(store: Store, plan: Plan, manifest: Manifest, *, progress: Callable[[int], None] | None) -> None:
    done = frozenset(o.path for o in store.list(PLAN_FOLDER))  # of a driver that was killed while it planned
    put_all(store, _encoded_units(_counted(read_clips(manifest), progress), plan, done))


def freeze(store: Store, plan: Plan) -> Plan:
    """Write plan.json, the last step of planning, unless another driver has; returns the plan that counts."""
    store.put_if_absent(PLAN, _encode(plan))
    frozen = load_plan(store)
    if frozen is None or frozen.fingerprint != plan.fingerprint:
        raise StorageError(f"{store.uri}/{PLAN} was written and reads back differently; is the store consistent?")
    return frozen


def _encoded_units(batches: Iterator[pa.RecordBatch], plan: Plan, done: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Cut the stream into units and encode those that are not `done`; holds one unit and one batch at most."""
    pieces: list[pa.RecordBatch] = []
    unit = rows = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, plan.unit_clips - rows)
            pieces.append(piece)
            start += piece.num_rows
            rows += piece.num_rows
            if rows == plan.unit_size(unit):
                if unit_path(unit) not in done:
                    yield unit_path(unit), _encoded(pa.Table.from_batches(pieces, plan.schema))
                pieces, unit, rows = [], unit + 1, 0
    if unit != plan.num_units:
        raise ManifestError(
            f"The manifest {plan.manifest_uri} shrank while it was planned; run the same command again."
        )


def _discard_units(store: Store) -> None:
    """Units cut from a file that changed under the reader must not be taken for the plan by a later driver."""
    for found in store.list(PLAN_FOLDER):
        if found.path != CLAIM:
            store.delete(found.path)


def _encoded(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return bytes(buffer.getvalue())


def _counted(batches: Iterator[pa.RecordBatch], progress: Callable[[int], None] | None) -> Iterator[pa.RecordBatch]:
    num_rows = 0
    for batch in batches:
        yield batch
        num_rows += batch.num_rows
        if progress is not None:
            progress(num_rows)


def _manifest_changed(store: Store, claim: Claim, source: ManifestSource) -> str:
    old: dict[str, Json] = {
        "digest": str(claim.identity.values[MANIFEST_DIGEST]),
        "num_bytes": claim.manifest.get("num_bytes"),
    }
    new: dict[str, Json] = {"digest": source.digest, "num_bytes": source.num_bytes}
    lines = differences(old, new)
    if source.is_listing and int(str(claim.manifest.get("num_clips", 0))) <= _COMPARED_CLIPS:
        lines += _changed_files(store, source)
    return (
        f"The manifest {source.uri} is not the one the run folder {store.uri} was planned from:\n"
        + "\n".join(f"  - {line}" for line in lines)
        + "\nBring the old one back to resume the run, or give the new one a run folder of its own (run.path). To "
        "freeze a folder that still grows, write a list first: vidcls manifest PREFIX -o clips.parquet."
    )


def _changed_files(store: Store, source: ManifestSource) -> list[str]:
    plan = load_plan(store)
    if plan is None:
        return []
    old = {u for unit in range(plan.num_units) for u in read_unit(store, unit)["uri"].to_pylist()}
    new = set(pq.read_table(source.files[0])["uri"].to_pylist())
    changes = {"added": sorted(new - old), "removed": sorted(old - new)}
    return [f"{len(uris)} files {what}, e.g. {uris[0]}" for what, uris in changes.items() if uris]


def _encode(plan: Plan) -> bytes:
    record = {name: getattr(plan, name) for name in Plan.__slots__ if name != "extra_schema"}
    record["extra_columns"] = {f.name: str(f.type) for f in plan.extra_schema}  # for people
    record["extra_schema"] = base64.b64encode(plan.extra_schema.serialize()).decode()
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
