"""How fast the API answers beside many who read events.

    maquette serve &
    python bench/api_load.py --server http://127.0.0.1:8000 --readers 200 --rate 50 --seconds 6

Opens event streams of the newest job, then reads that job at a steady rate; prints the latencies.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import httpx


async def measure(server: str, readers: int, rate: float, seconds: float) -> None:
    limits = httpx.Limits(max_connections=readers + 200)
    async with httpx.AsyncClient(base_url=server, limits=limits, timeout=60) as client:
        jobs = (await client.get("/v1/jobs")).json()["jobs"]
        if not jobs:
            raise SystemExit("There is no job to read; make one first.")
        path = f"/v1/jobs/{jobs[0]['id']}"
        streams = [asyncio.create_task(read_events(client, f"{path}/events")) for _ in range(readers)]
        await asyncio.sleep(5)
        reads = []
        for _ in range(int(rate * seconds)):
            reads.append(asyncio.create_task(timed(client, path)))
            await asyncio.sleep(1 / rate)
        spent = sorted(await asyncio.gather(*reads))
        broken = sum(stream.done() and stream.exception() is not None for stream in streams)
        for stream in streams:
            stream.cancel()
    middle, late = spent[len(spent) // 2], spent[int(len(spent) * 0.99)]
    print(f"{readers} event readers ({broken} broken), {len(spent)} reads at {rate:g} a second")
    print(f"p50 {middle * 1e3:.0f} ms, p99 {late * 1e3:.0f} ms, most {spent[-1] * 1e3:.0f} ms")


async def read_events(client: httpx.AsyncClient, path: str) -> None:
    async with client.stream("GET", path) as answer:
        async for _ in answer.aiter_lines():
            pass


async def timed(client: httpx.AsyncClient, path: str) -> float:
    began = time.perf_counter()
    answer = await client.get(path)
    answer.raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.server, arguments.readers, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
