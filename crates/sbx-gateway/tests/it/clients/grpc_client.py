"""A unary call with its trailer, one that fails, and a stream in which each answer is waited for."""
import queue
import sys
import grpc

channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())
try:
    answer, call = channel.unary_unary("/test.Test/Unary").with_call(b"you", timeout=30)
    trailer = dict(call.trailing_metadata())["x-trailer"]
    try:
        channel.unary_unary("/test.Test/Unary")(b"fail", timeout=30)
    except grpc.RpcError as error:
        failure = f"{error.code().name} {error.details()}"
    said = []
    requests = queue.Queue()
    answers = channel.stream_stream("/test.Test/Echo")(iter(requests.get, None), timeout=30)
    for number in range(3):
        requests.put(b"%d" % number)
        said.append(next(answers).decode())
    requests.put(None)
    assert list(answers) == []
    print(f"{answer.decode()}, trailer {trailer}, {failure}, {' '.join(said)} end")
except grpc.RpcError as error:
    print(error.code(), error.details())
    sys.exit(1)
