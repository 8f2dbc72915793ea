"""Stops a run of which nearly every clip fails: then it is the job that is wrong, not the clips."""

from collections import Counter

import pyarrow as pa

from vidcls_batch.errors import IncompleteRunError, Status

LEAST_CLIPS = 1000  # fewer say nothing of the rest


class FailureBrake:
    """Counts this driver's rows; raises once more than `max_share` of them, and of at least 1,000, have failed."""

    def __init__(self, *, max_share: float) -> None:
        self._max_share = max_share
        self._clips = 0
        self._failed: Counter[tuple[str, str]] = Counter()
        self._messages: dict[tuple[str, str], str] = {}

    def add(self, rows: pa.Table) -> None:
        """Take note of rows of `result_schema`. Raises IncompleteRunError."""
        statuses = rows["status"].to_pylist()
        self._clips += len(statuses)
        if statuses.count(Status.OK.value) < len(statuses):
            reasons = zip(statuses, rows["error_code"].to_pylist(), rows["error_message"].to_pylist(), strict=True)
            for status, code, message in reasons:
                if status != Status.OK:
                    self._failed[status, code or ""] += 1
                    self._messages[status, code or ""] = message or ""
        count = self._failed.total()
        if self._clips >= LEAST_CLIPS and count > self._max_share * self._clips:
            (kind, of_kind), *_ = self._failed.most_common(1)
            name = "/".join(filter(None, kind))
            raise IncompleteRunError(
                f"{count:,} of the first {self._clips:,} clips failed, more than run.max_failed_share="
                f"{self._max_share:g} allows; {of_kind:,} of them with {name}, the last one: {self._messages[kind]}. "
                "If that is the job's doing (credentials, a library, a limit), mend it and run the same command again; "
                f"rows that are committed already want `vidcls retry RUN --status {kind[0]}` afterwards. If the clips "
                "are like that, run it again with --set run.max_failed_share=1"
            )
