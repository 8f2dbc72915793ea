"""A real S3 server for tests: Ceph's object gateway over one monitor and one in-memory OSD, up in about 13 s.

By hand: `python -m infra.testing.ceph_rgw` serves until Ctrl-C and prints the VIDCLS_TEST_S3 that the tests take.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0

_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
public_network = 127.0.0.0/8
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_warn_on_pool_no_redundancy = false
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
log_file = {folder}/log/$name.log
keyring = {folder}/keyring
[mon.a]
mon_data = {folder}/mon
mon_initial_members = a
[osd.0]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_memory_target = 939524096
[client.rgw.a]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_thread_pool_size = 64
rgw_dynamic_resharding = false
"""


class CephError(Exception):
    """Ceph did not start; the message holds the end of its logs."""


@dataclass(frozen=True)
class CephServer:
    """A running gateway; `add_user` makes keys for it."""

    folder: Path
    port: int

    @property
    def endpoint_url(self) -> str:
        """What S3 clients are told."""
        return f"http://127.0.0.1:{self.port}"

    def add_user(self, name: str, *, access_key: str, secret_key: str) -> None:
        """A user who owns what it makes; others' buckets it may use as their policies say."""
        key = [f"--access-key={access_key}", f"--secret={secret_key}"]
        _run(
            "radosgw-admin", "-n", "client.rgw.a", "-c", self.folder / "ceph.conf",
            "user", "create", f"--uid={name}", f"--display-name={name}", *key,
        )  # fmt: skip


def missing_programs() -> list[str]:
    """What of Ceph is not installed here; see install_ceph.sh."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def ceph_rgw() -> Iterator[CephServer]:
    """Serve as long as the context lasts; nothing of it stays. Raises CephError where it does not start."""
    # A short path: admin sockets have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="vidcls-ceph-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = CephServer(folder, port=_free_port())
        try:
            for process in _start(server):
                stack.callback(_stop, process)
            _await_answer(server)
        except (subprocess.SubprocessError, TimeoutError) as error:
            tails = [f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in (folder / "log").iterdir()]
            raise CephError("\n".join([f"Ceph did not start: {error}", *tails])) from error
        yield server


def _start(server: CephServer) -> Iterator[subprocess.Popen[bytes]]:
    folder, conf = server.folder, server.folder / "ceph.conf"
    for name in ("mon", "osd", "rgw", "run", "log"):
        (folder / name).mkdir()
    fsid, mon_port = uuid.uuid4(), _free_port()
    conf.write_text(_CONF.format(fsid=fsid, folder=folder, port=server.port, mon_port=mon_port))
    keyring, monmap = folder / "keyring", folder / "monmap"
    key = ["ceph-authtool", keyring, "--gen-key", "-n"]
    _run("ceph-authtool", "--create-keyring", *key[1:], "mon.", "--cap", "mon", "allow *")
    _run(*key, "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    _run(*key, "client.rgw.a", "--cap", "mon", "allow rw", "--cap", "osd", "allow rwx")
    _run(*key, "osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *")
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monmap)
    _run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring, "-c", conf)
    # In the foreground (-f), so that they are ours to end.
    yield _spawn(folder, "ceph-mon", "-f", "-i", "a", "-c", conf)
    _run("ceph", "-c", conf, "auth", "import", "-i", keyring)
    osd_uuid = uuid.uuid4()
    _run("ceph", "-c", conf, "osd", "new", osd_uuid)
    _run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid, "-c", conf)
    yield _spawn(folder, "ceph-osd", "-f", "-i", "0", "-c", conf)
    yield _spawn(folder, "radosgw", "-f", "-n", "client.rgw.a", "-c", conf)


def _await_answer(server: CephServer) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {START_TIMEOUT_S:g} s") from None
            time.sleep(0.1)


def _run(*command: object) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, timeout=START_TIMEOUT_S, check=False)
    if done.returncode:
        raise subprocess.SubprocessError(f"{command[0]} exited {done.returncode}: {done.stderr.decode()[-500:]}")


def _spawn(folder: Path, *command: object) -> subprocess.Popen[bytes]:
    with (folder / "log" / f"{command[0]}.out").open("ab") as out:
        # A test run that is killed takes its server along.
        bound = ["setpriv", "--pdeathsig", "TERM", *map(str, command)]
        return subprocess.Popen(bound, stdout=out, stderr=out, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with ceph_rgw() as running:
        running.add_user("test", access_key="test", secret_key="test")
        print(f"VIDCLS_TEST_S3=http://test:test@127.0.0.1:{running.port}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
