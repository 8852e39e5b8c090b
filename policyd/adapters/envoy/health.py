"""grpc.health.v1 for Envoy and Kubernetes. Its two messages are one field each, so they are written by hand.

HealthCheckRequest {string service = 1} is not looked at: this process is one service. HealthCheckResponse
{ServingStatus status = 1}.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class Health:
    """What the process answers when it is asked how it is. NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        self.status = NOT_SERVING
        self._changed = asyncio.Event()

    def tell(self, status: bytes) -> None:
        """Change the answer, and tell whoever watches."""
        self.status = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def check(self, request: bytes, call: Any) -> bytes:  # noqa: ARG002 - gRPC's shape
        return self.status

    async def watch(self, request: bytes, call: Any) -> AsyncIterator[bytes]:  # noqa: ARG002
        """The status now and at every change, until the process stops serving or the watcher leaves."""
        while True:
            changed, status = self._changed, self.status
            yield status
            if status == NOT_SERVING:
                return  # an open watch would hold up the drain
            await changed.wait()

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)
