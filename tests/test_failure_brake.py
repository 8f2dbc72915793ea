"""A run that only fails is stopped, one with some failures is not."""

import pyarrow as pa
import pytest

from vidcls_batch.errors import IncompleteRunError
from vidcls_batch.failure_brake import LEAST_CLIPS, FailureBrake


def rows(*, ok: int = 0, refused: int = 0, broken: int = 0) -> pa.Table:
    kinds = [("ok", None, None)] * ok
    kinds += [("fetch_error", "http_403", f"clip {i} is forbidden") for i in range(refused)]
    kinds += [("decode_error", "moov_missing", "no moov")] * broken
    columns = zip(*kinds, strict=True)
    return pa.table(dict(zip(("status", "error_code", "error_message"), columns, strict=True)))


def test_run_of_which_nearly_every_clip_fails_is_stopped_with_the_commonest_reason() -> None:
    brake = FailureBrake(max_share=0.95)
    for _ in range(LEAST_CLIPS // 100 - 1):
        brake.add(rows(ok=2, refused=90, broken=8))
    with pytest.raises(IncompleteRunError) as told:
        brake.add(rows(ok=2, refused=90, broken=8))
    for part in ("980 of the first 1,000 clips failed", "900 of them with fetch_error/http_403", "clip 89 is forbidden",
                 "--status fetch_error", "run.max_failed_share=1"):  # fmt: skip
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("share", "good", "bad"), [(0.95, 50, 950), (0.95, 0, 999), (1.0, 0, 5000), (0.5, 600, 600), (0.5, 3000, 1)]
)
def test_few_clips_or_few_failures_do_not_stop_it(share: float, good: int, bad: int) -> None:
    FailureBrake(max_share=share).add(rows(ok=good, broken=bad))


def test_share_is_of_all_clips_so_far() -> None:
    brake = FailureBrake(max_share=0.5)
    brake.add(rows(ok=2000))
    for _ in range(4):
        brake.add(rows(broken=500))
    with pytest.raises(IncompleteRunError):
        brake.add(rows(broken=1))
