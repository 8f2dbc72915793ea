"""Runs whose clips, manifest, checkpoint and output all lie on one bucket of a real S3 server."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import s3fs

from tests.s3 import CREDENTIALS


def filesystem(endpoint_url: str) -> s3fs.S3FileSystem:
    """A client of the tests' own, past any fault proxy."""
    return s3fs.S3FileSystem(
        endpoint_url=endpoint_url,
        key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        secret=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def upload_dataset(fs: s3fs.S3FileSystem, clips: Sequence[Path], *, bucket: str) -> str:
    """The clips and a manifest of them, c0000 on; returns the manifest's URI."""
    for path in clips:
        fs.put_file(str(path), f"{bucket}/clips/{path.name}")
    uris = [f"s3://{bucket}/clips/{path.name}" for path in clips]
    table = pd.DataFrame({"clip_id": [f"c{i:04d}" for i in range(len(uris))], "uri": uris})
    fs.pipe_file(f"{bucket}/manifest.parquet", table.to_parquet())
    return f"s3://{bucket}/manifest.parquet"


def prediction_files(fs: s3fs.S3FileSystem, run: str) -> dict[str, bytes]:
    """Name -> bytes of each committed file of the run at `bucket/prefix`."""
    return {name: fs.cat_file(name) for name in sorted(fs.ls(f"{run}/predictions"))}


def predictions(fs: s3fs.S3FileSystem, run: str) -> pd.DataFrame:
    """The run's table in file order."""
    return pd.concat([pd.read_parquet(fs.open(name)) for name in sorted(fs.ls(f"{run}/predictions"))])
