"""Calls on grpcio through the gateway at the address that is given. Prints what came of each as one JSON document."""

import json
import queue
import sys
import threading

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
PATIENCE = 100


def text(value):
    return value if isinstance(value, str) else value.hex()


def metadata(pairs):
    return {key: text(value) for key, value in pairs or ()}


def outcome(call):
    """What `call` came to: its answer, or its status."""
    try:
        return {"code": "OK", "answer": call()}
    except grpc.RpcError as error:
        trailers = metadata(error.trailing_metadata())
        trailers.update(metadata(error.initial_metadata()))
        return {"code": error.code().name, "message": error.details(), "trailers": trailers}


def unary(method, request=b"ping", timeout=PATIENCE, **more):
    return outcome(lambda: channel.unary_unary(method)(request, timeout=timeout, **more).decode())


def with_metadata():
    answer, call = channel.unary_unary("/test.Service/Unary").with_call(b"ping", timeout=PATIENCE)
    return {
        "answer": answer.decode(),
        "initial": metadata(call.initial_metadata()),
        "trailing": metadata(call.trailing_metadata()),
    }


def ping_pong():
    """Each message is sent only when the answer to the last one is there."""
    outbox = queue.Queue()
    answers = channel.stream_stream("/test.Service/Echo")(iter(outbox.get, None), timeout=PATIENCE)
    got = []
    for number in range(50):
        outbox.put(f"message {number}".encode())
        got.append(next(answers).decode())
    outbox.put(None)
    return {"got": got, "rest": len(list(answers)), "code": answers.code().name}


def early():
    """The service ends first; what the client still sends is no error."""
    outbox = queue.Queue()
    answers = channel.stream_stream("/test.Service/Early")(iter(outbox.get, None), timeout=PATIENCE)
    outbox.put(b"one")
    got = [answer.decode() for answer in answers]
    outbox.put(None)
    return {"got": got, "code": answers.code().name}


def cancel():
    answers = channel.unary_stream("/test.Service/Wait")(b"", timeout=PATIENCE)
    first = next(answers).decode()
    answers.cancel()
    return {"first": first, "noticed": unary("/test.Service/WasCancelled")["answer"]}


def after_the_deadline(method):
    """A stream that falls silent after its first message."""
    answers = channel.unary_stream(method)(b"", timeout=PATIENCE)
    first = next(answers).decode()
    return {"first": first, "end": outcome(lambda: next(answers).decode())}


def large():
    size = 8 * 1024 * 1024
    answer = channel.unary_unary("/test.Service/Unary")(b"x" * size, timeout=PATIENCE)
    return len(answer) == size


def many():
    """Calls side by side on one connection."""
    calls = [channel.unary_unary("/test.Service/Unary").future(str(n).encode(), timeout=PATIENCE) for n in range(300)]
    return all(call.result() == str(n).encode() for n, call in enumerate(calls))


def credentials():
    if len(sys.argv) < 3:
        return grpc.insecure_channel(sys.argv[1], options=OPTIONS)
    with open(sys.argv[2], "rb") as authority:
        secure = grpc.ssl_channel_credentials(authority.read())
    return grpc.secure_channel(sys.argv[1], secure, options=OPTIONS + [("grpc.ssl_target_name_override", "a.test")])


channel = credentials()
joined = channel.stream_unary("/test.Service/Join")
counted = channel.unary_stream("/test.Service/Count")
print(
    json.dumps(
        {
            "unary": with_metadata(),
            "fail": unary("/test.Service/Fail"),
            "seen": unary("/test.Service/Seen", metadata=(("x-text", "a b"), ("x-raw-bin", b"\x01\xfe"))),
            "join": joined(iter([b"a", b"b", b"c"]), timeout=PATIENCE).decode(),
            "join_nothing": joined(iter([]), timeout=PATIENCE).decode(),
            "count": [answer.decode() for answer in counted(b"1000", timeout=PATIENCE)] == [str(n) for n in range(1000)],
            "count_nothing": [answer.decode() for answer in counted(b"0", timeout=PATIENCE)],
            "ping_pong": ping_pong(),
            "early": early(),
            "cancel": cancel(),
            "left": unary("/test.Service/Left", timeout=50),
            "left_capped": unary("/bounded.Service/Left", timeout=50),
            "left_of_none": unary("/bounded.Service/Left", timeout=None),
            "too_slow": after_the_deadline("/bounded.Service/Wait"),
            "own_deadline": unary("/test.Service/WasCancelledNot", timeout=PATIENCE),
            "large": large(),
            "many": many(),
            "unknown": unary("/unknown.Service/Unary"),
            "forbidden": unary("/closed.Service/Unary"),
            "unauthorized": unary("/locked.Service/Unary"),
            "too_large": unary("/small.Service/Unary", b"x" * 2000),
            "limited": [unary("/many.Service/Unary") for _ in range(2)][1],
            "dead": unary("/dead.Service/Unary"),
        }
    )
)
