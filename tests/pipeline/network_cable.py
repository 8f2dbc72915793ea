"""A network of one machine and one node, whose cable a test may pull: the node lives on, but nobody hears it."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Cable:
    """`here` and `there` are the addresses at its ends."""

    name: str
    here: str
    there: str

    @property
    def within(self) -> list[str]:
        """The command that runs another one at the far end."""
        return ["ip", "netns", "exec", self.name]

    def pull(self) -> None:
        _ip("link", "set", self.name, "down")

    def plug(self) -> None:
        _ip("link", "set", self.name, "up")


@contextmanager
def network_cable() -> Iterator[Cable]:
    """Skips where this process may not make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network of its own needs root and the command ip")
    net = f"10.{random.randint(64, 254)}.{random.randint(0, 254)}"
    cable = Cable(f"vc{os.getpid()}", f"{net}.1", f"{net}.2")
    try:
        _ip("netns", "add", cable.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    try:
        _ip("link", "add", cable.name, "type", "veth", "peer", "name", "eth0", "netns", cable.name)
        _ip("addr", "add", f"{cable.here}/30", "dev", cable.name)
        _ip("-n", cable.name, "addr", "add", f"{cable.there}/30", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", cable.name, "link", "set", link, "up")
        cable.plug()
        yield cable
    finally:
        _ip("netns", "del", cable.name)  # with its end of the cable, and so with ours


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)
