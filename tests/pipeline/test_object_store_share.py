"""The share of the object store that is full, as the advisor asks for it."""

import time

import numpy as np
import pytest

from vidcls_batch.pipeline import object_store_share


def test_it_grows_with_what_lies_in_the_store(ray_session: None) -> None:
    import ray

    def share_reaches(least: float) -> bool:
        # Nodes tell the head of their resources every second or so.
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if (object_store_share() or 0.0) >= least:
                return True
            time.sleep(0.2)
        return False

    before = object_store_share()
    assert before is not None
    if before > 0.5:
        pytest.skip("other tests' blocks fill the store")
    kept = ray.put(np.zeros(200 << 20, np.uint8))  # of 512 MiB
    assert share_reaches(before + 0.3)
    del kept
