"""Which objects a manifest may name: it is untrusted, and workers may reach more than its author."""

import ipaddress
import posixpath
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from vidcls_batch.errors import UriNotAllowedError
from vidcls_batch.storage.options import is_local, local_path, protocol_of

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hf")
WEB = ("http", "https")


@dataclass(frozen=True, slots=True)
class AllowedUris:
    """What clips' URIs may be. The default, for a run on one's own machine, is anything.

    `prefixes` allow what lies below them and nothing else. Without any, `anything` allows all, and otherwise object
    stores and public web servers: no files of the workers, no addresses of their networks.
    """

    prefixes: tuple[str, ...] = ()
    anything: bool = True

    def check(self, uri: str) -> None:
        """Raise UriNotAllowedError for a URI that must not be read."""
        if self.prefixes:
            if not any(_lies_below(uri, prefix) for prefix in self.prefixes):
                raise _refused(uri, f"it lies below none of manifest.allow: {', '.join(self.prefixes)}")
        elif not self.anything and protocol_of(uri) not in (*OBJECT_STORES, *WEB):
            raise _refused(uri, f"a cluster run reads no {protocol_of(uri)}:// URIs unless manifest.allow names them")

    @property
    def web_hosts(self) -> tuple[str, ...] | None:
        """Hosts that may have private addresses; None: all may."""
        if self.anything and not self.prefixes:
            return None
        return tuple(h for p in self.prefixes if protocol_of(p) in WEB and (h := urlsplit(p).hostname))


def _lies_below(uri: str, prefix: str) -> bool:
    if is_local(uri) != is_local(prefix):
        return False
    if is_local(uri):
        # Links are followed: one inside the folder must not lead out of it.
        return local_path(uri).resolve().is_relative_to(local_path(prefix).resolve())
    asked, allowed = urlsplit(uri), urlsplit(prefix)
    if ".." in unquote(asked.path).split("/") or asked.username is not None:
        return False
    if (asked.scheme.lower(), asked.netloc.lower()) != (allowed.scheme.lower(), allowed.netloc.lower()):
        return False
    return f"{posixpath.normpath(asked.path)}/".startswith(f"{allowed.path.rstrip('/')}/")


def web_client_options(hosts: Sequence[str]) -> dict[str, Any]:
    """Arguments of fsspec's HTTP file system: connections go to public addresses and to `hosts` only.

    Checked where sockets are made, so that redirects and names that resolve to private addresses are covered.
    """
    return {"get_client": _ClientFactory(tuple(hosts))}


@dataclass(frozen=True, slots=True)
class _ClientFactory:
    hosts: tuple[str, ...]

    async def __call__(self, **options: Any) -> Any:
        import aiohttp

        options.pop("loop", None)
        # One address after the other: with happy eyeballs the reason for a refusal gets lost.
        connector = aiohttp.TCPConnector(socket_factory=self._socket, happy_eyeballs_delay=None)
        return aiohttp.ClientSession(connector=connector, **options)

    def _socket(self, address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, endpoint = address
        ip = ipaddress.ip_address(str(endpoint[0]).partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if not ip.is_global and str(ip) not in _addresses(self.hosts):
            raise _refused(str(ip), "a cluster run reads from no private address unless manifest.allow names its host")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def _addresses(hosts: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for host in hosts:
        try:
            found.update(str(info[4][0]) for info in socket.getaddrinfo(host, None))
        except OSError:
            continue
    return found


def _refused(uri: str, why: str) -> UriNotAllowedError:
    return UriNotAllowedError(f"{uri} is not read: {why}")
