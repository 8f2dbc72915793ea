"""A small S3 server for tests: moto in a thread. It checks no secrets; its atomicity is that of one Python process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from moto.server import ThreadedMotoServer

# Another server to run the tests against, e.g. a Ceph RGW: VIDCLS_TEST_S3=http://key:secret@host:port
OTHER_SERVER = urlsplit(os.environ.get("VIDCLS_TEST_S3", ""))
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": OTHER_SERVER.username or "test",
    "AWS_SECRET_ACCESS_KEY": OTHER_SERVER.password or "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and a fresh bucket on it; credentials are in the environment."""

    endpoint_url: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"


@contextmanager
def s3_endpoint_url() -> Iterator[str]:
    """Run the server for as long as the context lasts; gives its URL."""
    if OTHER_SERVER.hostname:
        yield f"{OTHER_SERVER.scheme}://{OTHER_SERVER.hostname}:{OTHER_SERVER.port}"
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
