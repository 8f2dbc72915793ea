"""A run's folder on a local or mounted file system: whole files only, and first-writer-wins creation."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vidcls_batch.errors import StorageError
from vidcls_batch.storage.faults import store_fault
from vidcls_batch.storage.objects import ObjectInfo, list_objects
from vidcls_batch.storage.options import StorageOptions, local_path

# Unfinished files wait here, outside the folders that table readers open; what a killed writer leaves is harmless.
STAGING = ".staging"


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of files; see `Store` for the contract."""

    uri: str

    @property
    def root(self) -> Path:
        """The folder."""
        return local_path(self.uri)

    def create(self) -> None:
        """Make the folder and its parents."""
        with self._explained("", "write"):
            self.root.mkdir(parents=True, exist_ok=True)

    def read_bytes(self, path: str) -> bytes:
        """A whole file."""
        with self._explained(path, "read"):
            return (self.root / path).read_bytes()

    def read_tail(self, path: str, num_bytes: int) -> bytes:
        """The end of a file."""
        with self._explained(path, "read"), (self.root / path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - num_bytes))
            return file.read()

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._explained(path, "read"):
            return (self.root / path).is_file()

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All files below a folder, without the unfinished ones."""
        self._check_root()
        folder = self.root / prefix
        with self._explained(prefix, "list"):
            if not folder.is_dir():
                return []
            found = list(list_objects(str(folder), options=StorageOptions()))
        relative = [ObjectInfo(str(Path(o.path).relative_to(self.root)), o.num_bytes, o.version) for o in found]
        return [o for o in relative if not o.path.startswith(f"{STAGING}/")]

    def put(self, path: str, data: bytes) -> None:
        """Stage, sync, then rename over what is there."""
        with self._explained(path, "write"), self._staged(path, data) as staged:
            staged.replace(self.root / path)
            _sync_folder((self.root / path).parent)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Stage, sync, then link: the kernel lets exactly one link of a name succeed."""
        target = self.root / path
        with self._explained(path, "write"):
            # A cheap look first, so that a late duplicate costs no write; os.link below is what decides.
            if not target.exists():
                with self._staged(path, data) as staged:
                    try:
                        os.link(staged, target)
                    except FileExistsError:
                        pass
                    except OSError as error:
                        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                            raise
                        raise StorageError(
                            f"Cannot write {target}: this file system has no hard links, so a commit could not be "
                            "atomic. Put run.path on a local disk, NFS, Lustre or an s3:// bucket."
                        ) from error
                    else:
                        _sync_folder(target.parent)
                        return True
            # NFS can lose the reply to a link() that worked: ours is ours, whatever the answer was.
            return target.read_bytes() == data

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._explained(path, "delete"):
            (self.root / path).unlink(missing_ok=True)

    def _check_root(self) -> None:
        if not self.root.is_dir():
            raise StorageError(
                f"The run folder {self.root} is not there. Was it moved, deleted or unmounted? Bring it back, then run "
                "the same command again."
            )

    @contextmanager
    def _staged(self, path: str, data: bytes) -> Iterator[Path]:
        self._check_root()  # before any mkdir: an unmounted disk must not be replaced by an empty folder
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        staged = self.root / STAGING / f"{os.getpid()}-{secrets.token_hex(8)}"
        staged.parent.mkdir(exist_ok=True)
        try:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield staged
        finally:
            with suppress(OSError):  # the write's own error is the one to show
                staged.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, path: str, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise store_fault(error, uri=str(self.root / path), doing=doing) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
