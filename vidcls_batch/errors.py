"""The two kinds of failure: the job is wrong (raise), or one clip is wrong (a row)."""

from enum import StrEnum


class Status(StrEnum):
    """How a clip ended; each clip of the manifest ends as exactly one row with one of these."""

    OK = "ok"
    FETCH_ERROR = "fetch_error"  # the bytes could not be had
    NO_VIDEO = "no_video"  # the file opens and holds no video stream
    DECODE_ERROR = "decode_error"  # the bytes are no video, or too damaged to give a frame
    TIMEOUT = "timeout"  # the decoder ran past its limit and was killed
    CRASHED = "crashed"  # the decoder died (segfault, out of memory)
    TOO_LARGE = "too_large"  # over a limit of bytes, pixels, duration or packets; never decoded
    MODEL_ERROR = "model_error"  # a member raised on this clip
    POISON = "poison"  # the worker process died each time this clip was in it


FAILURES: tuple[Status, ...] = tuple(s for s in Status if s is not Status.OK)


class Stage(StrEnum):
    """Where a clip failed."""

    FETCH = "fetch"
    DECODE = "decode"
    CLASSIFY = "classify"
    RUN = "run"


class VidclsError(Exception):
    """The job cannot go on; the message says the value, what is allowed and what to do next."""


class ConfigError(VidclsError):
    """The configuration is wrong; raised before anything is read or loaded."""


class ManifestError(VidclsError):
    """The manifest cannot be planned; names the rows at fault."""


class CheckpointError(VidclsError):
    """A model checkpoint is missing, damaged, or does not fit what the run asks of it."""


class StorageError(VidclsError):
    """An object store or file system did not do what was asked of it.

    `transient`: the same request may well succeed a little later (a timeout, a 503), so a caller may try again.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient  # lives in __dict__, so it survives pickling


class ObjectTooLargeError(StorageError):
    """An object is larger than the caller allowed; its body was not read."""

    def __init__(self, message: str, *, num_bytes: int = 0) -> None:
        super().__init__(message)
        self.num_bytes = num_bytes


class UriNotAllowedError(StorageError):
    """A manifest names an object that this run must not read; nothing was asked of any store."""


class ClusterError(VidclsError):
    """Ray could not be started or reached."""


class RunMismatchError(VidclsError):
    """The run folder belongs to another config, manifest or code; the message shows the difference."""


class PreflightError(VidclsError):
    """A pre-flight found what would hurt the run: too many failing clips, too little memory."""


class IncompleteRunError(VidclsError):
    """The run ended without one row for each planned clip; the same command again resumes it."""


class VerificationError(VidclsError):
    """The committed table is not exactly the planned clips."""


class ClipError(Exception):
    """One clip could not be labeled. Becomes that clip's row and never leaves the stage it rose in.

    `code` is a short stable identifier (`moov_missing`, `http_404`), `message` is for a person.
    """

    def __init__(self, message: str, *, status: Status, stage: Stage, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.stage = stage
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by themselves; this one crosses processes.
        return (_rebuild_clip_error, (self.message, self.status, self.stage, self.code))


def _rebuild_clip_error(message: str, status: Status, stage: Stage, code: str) -> ClipError:
    return ClipError(message, status=status, stage=stage, code=code)
