"""A service on grpcio: raw messages, no generated code. Prints its port, and serves until its input ends."""

import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Event()


def unary(request, context):
    context.send_initial_metadata((("x-initial", "first"),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-bytes-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-trailing", "last"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü 100 %")


def left(request, context):
    remaining = context.time_remaining()
    return b"none" if remaining is None else str(remaining).encode()


def seen(request, context):
    """The names and values of what was sent as metadata."""
    return "\n".join(f"{key}={value}" for key, value in context.invocation_metadata()).encode()


def join(requests, context):
    return b",".join(requests)


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def count_values(request, context):
    """The same, in messages of google.protobuf.BytesValue: a tag, a length below 128, the bytes."""
    for number in range(int(request[2:])):
        text = str(number).encode()
        yield bytes([0x0A, len(text)]) + text


def echo(requests, context):
    for request in requests:
        yield request


def early(requests, context):
    """Ends while the client still goes on."""
    yield b"got " + next(requests)


def wait(request, context):
    """Says one thing, then nothing, until it is cancelled."""
    yield b"begun"
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(300)
    cancelled.set()


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(100) else b"no"


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Left": grpc.unary_unary_rpc_method_handler(left),
    "Seen": grpc.unary_unary_rpc_method_handler(seen),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "CountValues": grpc.unary_stream_rpc_method_handler(count_values),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Early": grpc.stream_stream_rpc_method_handler(early),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

server = grpc.server(futures.ThreadPoolExecutor(64), options=OPTIONS)
for name in ["test.Service", "bounded.Service", "small.Service", "many.Service"]:
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, HANDLERS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)
