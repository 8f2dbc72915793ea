"""Where checkpoints come from: a hub id, a local folder or file, or any fsspec URI fetched once per node."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import cast

import yaml

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.checkpoint_cache import fetch_once
from vidcls_batch.storage import StorageOptions

# Small files that describe a checkpoint: configs, tokenizers, the model card.
FACT_FILES = ("*.json", "*.txt", "*.model", "*.md", "*.jinja")
# One of these groups holds the weights; the first group with a file wins, so nothing is fetched twice.
WEIGHT_FILES = (("*.safetensors",), ("pytorch_model*.bin",), ("*.pyth", "*.pth", "*.pt"), ("*.pt2",), ("*.onnx*",))
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CheckpointAccess:
    """How to reach checkpoints that are not here yet."""

    storage: StorageOptions = field(default_factory=StorageOptions)
    cache_dir: Path | None = None  # where URIs are kept; default: vidcls-batch below the user's cache folder


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on this machine: a `save_pretrained` folder or one weights file."""

    name: str  # as asked for
    path: Path
    revision: str | None
    hub: bool = False

    def read_json(self, filename: str) -> dict[str, object] | None:
        """A file of the folder as a mapping, None when it is not there. Raises CheckpointError on broken JSON."""
        path = self.path / filename
        if not path.is_file():
            return None
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.name}: cannot read {filename}: {error}") from error
        if not isinstance(tree, dict):
            raise CheckpointError(f"{self.name}: {filename} holds {type(tree).__name__}, not a mapping")
        return cast(dict[str, object], tree)

    def weight_files(self) -> list[Path]:
        """The files that hold the weights, by name. Raises CheckpointError when there are none."""
        if self.path.is_file():
            return [self.path]
        names = [p.name for p in self.path.iterdir() if p.is_file()] if self.path.is_dir() else []
        for group in WEIGHT_FILES:
            if found := _matching(names, group):
                return [self.path / name for name in found]
        wanted = ", ".join(pattern for group in WEIGHT_FILES for pattern in group)
        raise CheckpointError(f"{self.name} has no weights: looked for {wanted} in {self.path}")

    def weights_sha256(self) -> str:
        """SHA-256 over the weight files in name order."""
        digest = hashlib.sha256()
        for path in self.weight_files():
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()

    def card_licence(self) -> str | None:
        """The licence in the model card's front matter, None when it does not say."""
        path = self.path / "README.md"
        if not path.is_file():
            return None
        parts = path.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        if len(parts) < 3 or parts[0].strip():
            return None
        try:
            front = yaml.safe_load(parts[1])
        except yaml.YAMLError:
            return None  # a card is prose by people; one that does not parse just does not say
        licence = front.get("license") if isinstance(front, dict) else None
        return licence if isinstance(licence, str) else None


def open_checkpoint(
    name: str, *, revision: str | None = None, weights: bool = True, access: CheckpointAccess | None = None
) -> Checkpoint:
    """Bring a checkpoint to this machine; without `weights` only its small files. Raises CheckpointError.

    `name` is a fsspec URI when it holds `://`, else a local folder or file when there is one, else a hub id.
    """
    access = access or CheckpointAccess()
    if "://" in name:
        return _from_uri(name, weights=weights, access=access)
    path = Path(name).expanduser()
    if path.exists():
        return Checkpoint(name=name, path=path, revision=None)
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(
            f"No checkpoint at {name!r}: there is no such folder or file, and it is no hub id (owner/name). "
            f"Relative paths are taken from the working directory, {Path.cwd()}"
        )
    return _from_hub(name, revision=revision, weights=weights)


def _from_hub(name: str, *, revision: str | None, weights: bool) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    def fetch(patterns: Iterable[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))

    try:
        folder = fetch(FACT_FILES)
        for group in WEIGHT_FILES if weights else ():
            folder = fetch((*FACT_FILES, *group))
            if _matching([p.name for p in folder.iterdir()], group):
                break
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"Cannot get {name!r} (revision {revision or 'main'}) from the Hugging Face hub: {reason} "
            "There is no local folder of that name either. Check the id and the network, run `hf auth login` for a "
            "gated model, or copy its files to a folder or bucket and give that as the checkpoint."
        ) from error
    # The cache's folder is named by the commit the revision meant.
    return Checkpoint(name=name, path=folder, revision=folder.name, hub=True)


def _from_uri(uri: str, *, weights: bool, access: CheckpointAccess) -> Checkpoint:
    def choose(names: list[str]) -> list[str]:
        chosen = _matching(names, FACT_FILES)
        for group in WEIGHT_FILES if weights else ():
            if found := _matching(names, group):
                return chosen + found
        return chosen

    copy = fetch_once(uri, choose=choose, storage=access.storage, cache_dir=access.cache_dir)
    return Checkpoint(name=uri, path=copy.path, revision=copy.revision)


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = tuple(patterns)
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))
