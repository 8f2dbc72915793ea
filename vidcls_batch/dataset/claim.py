"""Who a run folder belongs to: one record, created once, that every later driver has to match."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from vidcls_batch.dataset.run_record import Json, RunIdentity, refuse_differences
from vidcls_batch.errors import StorageError
from vidcls_batch.storage import Store
from vidcls_batch.storage.store import check_put_if_absent

CLAIM = "plan/claim.json"
MANIFEST_DIGEST = "manifest.digest"


@dataclass(frozen=True, slots=True)
class Claim:
    """The identity a folder was claimed with, and facts about its manifest for people to compare."""

    identity: RunIdentity  # with the manifest's digest
    manifest: Mapping[str, Json]

    @property
    def fingerprint(self) -> str:
        """Of the identity."""
        return self.identity.fingerprint()


def with_digest(identity: RunIdentity, digest: str) -> RunIdentity:
    """The identity of a run over a manifest with this content."""
    return RunIdentity({**identity.values, MANIFEST_DIGEST: digest})


def read_claim(store: Store) -> Claim | None:
    """The folder's claim, None for a new folder. Raises StorageError when it is there and damaged."""
    try:
        data = store.read_bytes(CLAIM)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        return Claim(identity=RunIdentity(record["identity"]), manifest=record["manifest"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{store.uri}/{CLAIM} is damaged ({error}); this run folder cannot be resumed.") from error


def require_same_run(store: Store, identity: RunIdentity) -> None:
    """Raise RunMismatchError, key by key, when the folder was made with another identity; the manifest aside."""
    claim = read_claim(store)
    if claim is not None:
        old = {key: value for key, value in claim.identity.values.items() if key != MANIFEST_DIGEST}
        refuse_differences(old, identity.values, uri=store.uri)


def claim_folder(store: Store, claim: Claim) -> None:
    """Make the folder this run's, or confirm that it already is. Raises RunMismatchError with the difference."""
    if (found := read_claim(store)) is None:
        check_put_if_absent(store, folder="plan")
        record = {
            "fingerprint": claim.fingerprint,
            "identity": dict(claim.identity.values),
            "manifest": dict(claim.manifest),
            "owner": secrets.token_hex(8),
        }
        if store.put_if_absent(CLAIM, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()):
            return
        found = read_claim(store)  # another driver was faster
    if found is None:
        raise StorageError(f"{store.uri}/{CLAIM} exists and cannot be read; does the store list what it was given?")
    refuse_differences(found.identity.values, claim.identity.values, uri=store.uri)
