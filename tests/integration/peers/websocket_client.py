"""Talks to websocket_server.py at the URL given; exits 1 with what is wrong, or 0."""

import asyncio
import sys

from websockets.asyncio.client import connect


async def talk(number):
    async with connect(sys.argv[1], proxy=None, max_size=None) as connection:
        for message in [f"text {number}", b"\x00\xff" * 50, "", "x" * 1_000_000]:
            await connection.send(message)
            seen = await asyncio.wait_for(connection.recv(), 10)
            if seen != message:
                sys.exit(f"{seen[:50]!r} came back instead of {message[:50]!r}")
        await asyncio.wait_for(await connection.ping(), 10)
    if connection.close_code != 1000:
        sys.exit(f"closed with {connection.close_code}")


async def main():
    await asyncio.gather(*(talk(number) for number in range(10)))


asyncio.run(main())
