"""A run whose clips, manifest and output all lie on S3."""

from pathlib import Path

import pandas as pd
import pytest
import s3fs

from vidcls_batch.storage import StorageOptions, open_store


def put_clips(fs: s3fs.S3FileSystem, clips: list[Path], *, bucket: str) -> None:
    for i, path in enumerate(clips):
        fs.put_file(str(path), f"{bucket}/clips/{'ab'[i % 2]}/{path.name}")
    fs.pipe_file(f"{bucket}/clips/notes.txt", b"no video")


@pytest.mark.timeout(300)
def test_prefix_of_clips_becomes_a_table_on_the_same_store(s3_server, make_config, clips, start):
    fs = s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url)
    put_clips(fs, clips, bucket=s3_server.bucket)
    config = make_config(
        f"{s3_server.uri}/clips/**/*.mp4", run={"path": f"{s3_server.uri}/runs/one", "canary_clips": 2}
    )

    driver = start(config)
    assert driver.finish() == 0, driver.tail()

    files = [f"s3://{f}" for f in fs.ls(f"{s3_server.bucket}/runs/one/predictions")]
    options = {"endpoint_url": s3_server.endpoint_url}
    table = pd.concat([pd.read_parquet(f, storage_options=options) for f in files])
    assert len(files) == 3
    assert sorted(Path(u).name for u in table["uri"]) == [c.name for c in clips]
    assert set(table["status"]) == {"ok"}
    assert table["clip_id"].is_unique
    store = open_store(f"{s3_server.uri}/runs/one", options=StorageOptions(endpoint_url=s3_server.endpoint_url))
    assert store.exists("_SUCCESS")

    before = {f: fs.cat_file(f) for f in files}
    again = start(config)
    assert again.finish() == 0
    assert "nothing to do" in again.log.read_text()
    assert {f: fs.cat_file(f) for f in files} == before


@pytest.mark.timeout(120)
def test_missing_bucket_is_a_clear_error_before_anything_starts(s3_server, make_config, clips, start, write_manifest):
    config = make_config(write_manifest(clips), run={"path": "s3://no-such-bucket-here/run"})
    driver = start(config)
    assert driver.finish() == 6
    text = driver.log.read_text()
    assert "no-such-bucket-here" in text
    assert "Traceback" not in text
