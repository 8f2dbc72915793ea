"""S3 servers for tests: moto in a thread, quick to start, and Ceph's gateway, a real one.

moto checks no secrets and its atomicity is that of one Python process: what races, refuses or breaks is tested on Ceph.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from moto.server import ThreadedMotoServer

from infra.testing.ceph_rgw import CephServer, ceph_rgw, missing_programs

INSTALL_CEPH = Path(__file__).parents[1] / "infra" / "testing" / "install_ceph.sh"

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


@contextmanager
def ceph_server() -> Iterator[CephServer]:
    """Ceph with CREDENTIALS' user; skips the test where it is not installed and cannot be."""
    if missing_programs() and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run([str(INSTALL_CEPH)], check=False, timeout=240)
    if missing := missing_programs():
        pytest.skip(f"no {', '.join(missing)} here: infra/testing/install_ceph.sh")
    with ceph_rgw() as server:
        server.add_user(
            "test",
            access_key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        yield server
