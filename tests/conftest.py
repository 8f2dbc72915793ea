"""Fixtures that more than one part of the tests shares."""

from collections.abc import Iterator
from uuid import uuid4

import boto3
import fsspec
import pytest
from hypothesis import settings
from s3fs import S3FileSystem

from infra.testing.ceph_rgw import CephServer
from tests.s3 import CREDENTIALS, S3Server, ceph_server, s3_endpoint_url

# A first import or a busy machine makes one example slow; that says nothing of the code.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(autouse=True, scope="session")
def label_text_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Label texts are embedded anew in each session, by the code under test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidcls_batch.models.zero_shot._CACHE", tmp_path_factory.mktemp("label_texts"))
        yield


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_endpoint_url() as endpoint_url:
        yield endpoint_url


@pytest.fixture
def s3_server(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 server with an empty bucket; endpoint and credentials are in the environment."""
    yield from _with_bucket(s3_endpoint, monkeypatch)


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephServer]:
    with ceph_server() as server:
        yield server


@pytest.fixture
def ceph_bucket(ceph: CephServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Like `s3_server`, on a server that checks secrets and settles races."""
    yield from _with_bucket(ceph.endpoint_url, monkeypatch)


def _with_bucket(endpoint_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint_url}.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=endpoint_url).create_bucket(Bucket=bucket)
    S3FileSystem.clear_instance_cache()  # clients keep the credentials they were made with
    yield S3Server(endpoint_url=endpoint_url, bucket=bucket)
    S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def _empty_memory_store() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()
