"""The plan of one run as the plan of another: the same clips in the same units under another identity."""

from collections.abc import Iterator
from dataclasses import replace

from vidcls_batch.dataset.claim import Claim, claim_folder, with_digest
from vidcls_batch.dataset.plan import PLAN_FOLDER, Plan, freeze, load_plan, unit_path
from vidcls_batch.dataset.puts import put_all
from vidcls_batch.dataset.run_record import RunIdentity
from vidcls_batch.storage import Store


def copy_plan(plan: Plan, *, source: Store, target: Store, identity: RunIdentity) -> Plan:
    """Plan `target` with the clips of `source`; finishes a copy that was cut short, confirms one that is there.

    Raises RunMismatchError when the folder belongs to another run, StorageError.
    """
    claim = Claim(with_digest(identity, plan.manifest_digest), {"uri": plan.manifest_uri, "num_clips": plan.num_clips})
    target.create()
    claim_folder(target, claim)
    known = load_plan(target)
    if known is not None:
        return known
    done = frozenset(o.path for o in target.list(PLAN_FOLDER))
    put_all(target, _units(plan, source=source, done=done))
    return freeze(target, replace(plan, fingerprint=claim.fingerprint))


def _units(plan: Plan, *, source: Store, done: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    for unit in range(plan.num_units):
        if unit_path(unit) not in done:
            yield unit_path(unit), source.read_bytes(unit_path(unit))
