"""The place where a server listens: made free where a dead process had it, and why it cannot be had."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from policyd.adapters.envoy.config import Address
from policyd.adapters.errors import NotAvailable, reason_of

_LONGEST_SOCKET_PATH = 107  # bytes, Linux


def make_way(path: Path) -> None:
    """Remove the socket of a process that is gone, and only that."""
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise NotAvailable(f"--listen unix:{path}: the path is longer than {_LONGEST_SOCKET_PATH} bytes")
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise NotAvailable(f"--listen unix:{path}: there is a file of that name, and it is no socket")
        if _answers(path):
            raise NotAvailable(f"--listen unix:{path}: another process listens there")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotAvailable(f"--listen unix:{path}: {reason_of(error)}") from None


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(1.0)
        try:
            peer.connect(str(path))
        except OSError:
            return False
    return True


def bind_failure(address: Address) -> str:
    """gRPC keeps the reason to itself, so ask the system."""
    if address.path:
        folder = Path(address.path).parent
        return "is its folder there, and may we write to it?" if not os.access(folder, os.W_OK) else "refused"
    try:
        socket.create_server((address.host, address.port), family=_family(address)).close()
    except OSError as error:
        return reason_of(error)
    return "refused"


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """What is made meanwhile lacks these permissions."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
