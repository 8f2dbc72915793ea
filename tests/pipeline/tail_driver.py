"""A run whose stages sleep: `python tail_driver.py CONFIG CLIPS SECONDS`.

A block of the first CLIPS takes SECONDS of decoding and no classifying, a later one no decoding and SECONDS of
classifying: what a worker does not do here leaves what Ray does with the workers.
"""

import sys
import time
from pathlib import Path

import pyarrow as pa

from benchmarks.scale_simulation import stand_in_rows
from vidcls_batch import pipeline
from vidcls_batch.config import load_config
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import ConsoleProgress
from vidcls_batch.stages.classify import ClassifySettings

CLIPS, SECONDS = int(sys.argv[2]), float(sys.argv[3])


def is_early(clips: pa.Table) -> bool:
    return bool(int(clips["clip_id"][0].as_py()) < CLIPS)


def sleep_and_decode(clips: pa.Table, *, pickled_settings: bytes) -> pa.Table:
    time.sleep(SECONDS if is_early(clips) else 0.0)
    return clips


class SleepAndClassify:
    def __init__(self, settings: ClassifySettings) -> None:
        self._columns = list(settings.columns)

    def __call__(self, clips: pa.Table) -> pa.Table:
        time.sleep(0.0 if is_early(clips) else SECONDS)
        return stand_in_rows(clips, self._columns)


if __name__ == "__main__":
    pipeline._decode_block = sleep_and_decode
    pipeline._ClassifierActor = SleepAndClassify  # type: ignore[assignment,misc]
    with ConsoleProgress() as progress:
        run_labeling(load_config(Path(sys.argv[1])), progress=progress)
