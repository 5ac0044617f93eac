"""Echo of a text, of one in fragments and of a large binary message, ping, and closes with their codes."""
import asyncio
import os
import sys
import websockets


def connect():
    # As programs do: compression is offered, which is not to be had on a connection that is read.
    return websockets.connect(sys.argv[1], open_timeout=30, max_size=None)


async def main():
    async with connect() as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.send(["in ", "three ", "fragments"])
        assert await socket.recv() == "in three fragments"
        large = os.urandom(5_000_000)
        await socket.send(large)
        assert await socket.recv() == large
        await (await socket.ping())
    async with connect() as other:
        await other.close(4321, "done")
    print(f"{len(large)} bytes, pong, closed with {socket.close_code} and {other.close_code}")


try:
    asyncio.run(main())
except Exception as error:
    answer = getattr(error, "response", None)
    print(type(error).__name__, error, bytes(answer.body).decode() if answer else "")
    sys.exit(1)
