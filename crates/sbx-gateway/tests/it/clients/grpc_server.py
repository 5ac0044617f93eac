"""A gRPC server with one unary and one bidirectional method. Arguments: key, certificate. Prints its port and serves
until its standard input ends."""
import sys
from concurrent import futures
import grpc


def unary(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    context.set_trailing_metadata((("x-trailer", "kept"),))
    return b"hello " + request


def echo(requests, context):
    for request in requests:
        yield b"echo " + request


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/test.Test/Unary":
            return grpc.unary_unary_rpc_method_handler(unary)
        if details.method == "/test.Test/Echo":
            return grpc.stream_stream_rpc_method_handler(echo)
        return None


key, certificate = (open(path, "rb").read() for path in sys.argv[1:3])
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)
