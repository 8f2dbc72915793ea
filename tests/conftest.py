"""Fixtures that more than one part of the tests shares."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and a fresh bucket on it; credentials are in the environment."""

    endpoint_url: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_server(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**credentials, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    S3FileSystem.clear_instance_cache()  # clients keep the credentials they were made with
    yield S3Server(endpoint_url=s3_endpoint, bucket=bucket)
    S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def _empty_memory_store() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()
