"""A disk that fills up in mid-run, and files nobody may read: a clear error, a row, and a good resume."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from slow_run import NUM_CLIPS, assert_exactly_the_manifest, committed

SMALL_DISK_KB = 4096


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path], None]]:
    """Mounts a disk of SMALL_DISK_KB at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_KB}k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to `path` until its disk is full."""
    with pytest.raises(OSError, match="No space left"):
        shutil.copyfile("/dev/zero", path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_full_disk_is_a_clear_error_and_room_again_is_a_good_resume(slow_config, start, small_disk):
    run = Path(slow_config.run.path)
    small_disk(run)
    driver = start(slow_config)
    driver.wait_for(lambda: committed(slow_config))
    fill(run / "ballast")
    assert driver.finish(timeout_s=200) == 6, driver.tail()
    said = driver.log.read_text()
    assert "full" in said
    assert "free some space, then run the same command again" in said
    assert "Traceback" not in said
    before = committed(slow_config)
    assert 0 < sum(len(pd.read_parquet(run / "predictions" / name)) for name in before) < NUM_CLIPS
    (run / "ballast").unlink()
    again = start(slow_config)
    assert again.finish(timeout_s=200) == 0, again.tail()
    after = committed(slow_config)
    assert {name: after[name] for name in before} == before
    assert_exactly_the_manifest(slow_config)


_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def _give_up_reading_everything() -> None:
    """In a child before exec: root without the right to pass over file permissions is as anybody else."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_file_that_may_not_be_read_is_a_row(make_config, write_manifest, clips, start, tmp_path):
    locked = tmp_path / "locked.mp4"
    locked.write_bytes(clips[0].read_bytes())
    locked.chmod(0)
    config = make_config(write_manifest([*clips, locked]))
    driver = start(config, before_exec=_give_up_reading_everything if os.getuid() == 0 else None)
    assert driver.finish(timeout_s=200) == 0, driver.tail()
    table = pd.read_parquet(Path(config.run.path) / "predictions").set_index("uri")
    row = table.loc[str(locked)]
    assert (row["status"], row["error_stage"], row["error_code"]) == ("fetch_error", "fetch", "permission")
    assert str(locked) in row["error_message"]
    assert set(table.drop(str(locked))["status"]) == {"ok"}
