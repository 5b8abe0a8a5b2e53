"""What others use in the place of this mesh: a unary method of ``grpc.aio``, bytes in and bytes out, no protobuf.

``python -m tests.bench.grpc_echo PORT`` serves. A request is as long as the message of CLOCK_RATE_GET, its reply too.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop

REQUEST = b"\x06\x50\x00\x00" + bytes(4)
REPLY_BYTES = 16
METHOD = "/scmi.Clock/RateGet"


async def rate_get(request: bytes, _context: Any) -> bytes:
    return request[:4] + bytes(REPLY_BYTES - 4)


async def serve(port: int) -> None:
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(rate_get)  # without serializers: bytes as they are
    _, service, name = METHOD.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        raise OSError(f"port {port} is taken")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
