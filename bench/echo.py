"""An ext_proc server that decides nothing: every answer streams through it and leaves as it came.

What any policy server in Python on gRPC pays, so what policyd is measured against: `python -m bench.echo unix:PATH`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from policyd.adapters.envoy.config import PROCESS_METHOD, SERVICE
from policyd.adapters.garbage import look_seldom

_Mode = pb.ProcessingMode
PASS = pb.ProcessingResponse(request_headers=pb.HeadersResponse()).SerializeToString()
STREAM = pb.ProcessingResponse(
    response_headers=pb.HeadersResponse(),
    mode_override=_Mode(response_body_mode=_Mode.FULL_DUPLEX_STREAMED, response_trailer_mode=_Mode.SEND),
).SerializeToString()
TRAILERS = pb.ProcessingResponse(response_trailers=pb.TrailersResponse()).SerializeToString()
FIXED = {"request_headers": PASS, "response_headers": STREAM, "response_trailers": TRAILERS}


async def process(_messages: object, stream: Any) -> None:
    """One call."""
    while (raw := await stream.read()) is not grpc.aio.EOF:
        message = pb.ProcessingRequest.FromString(raw)
        fixed = FIXED.get(message.WhichOneof("request"))
        await stream.write(_echo(message.response_body) if fixed is None else fixed)


def _echo(body: pb.HttpBody) -> bytes:
    answer = pb.ProcessingResponse()
    streamed = answer.response_body.response.body_mutation.streamed_response
    streamed.body = body.body
    streamed.end_of_stream = body.end_of_stream
    return bytes(answer.SerializeToString())


async def serve(address: str) -> None:
    """Serve there until told to stop."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    method = grpc.stream_stream_rpc_method_handler(process)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {PROCESS_METHOD: method}),))
    server.add_insecure_port(address)
    await server.start()
    look_seldom()  # as policyd does
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
