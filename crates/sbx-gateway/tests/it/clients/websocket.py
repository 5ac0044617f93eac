"""Echo of a text and of a large binary message, ping, and a clean close."""
import asyncio
import sys
import websockets


async def main():
    async with websockets.connect(sys.argv[1], open_timeout=30, max_size=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.send(bytes(200_000))
        length = len(await socket.recv())
        await (await socket.ping())
    print(f"{length} bytes, pong, closed with {socket.close_code}")


try:
    asyncio.run(main())
except Exception as error:
    answer = getattr(error, "response", None)
    print(type(error).__name__, error, bytes(answer.body).decode() if answer else "")
    sys.exit(1)
