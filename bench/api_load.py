"""How fast the API answers beside many who read events, while a job is made on the same machine.

    python -m bench.api_load                                   # starts a service of its own
    python -m bench.api_load --server http://127.0.0.1:8000    # without keys

A job of `--preset` is asked for; when it runs, `--readers` open its event stream and it is read at a steady
rate. The latencies are those of the reads; the bar is a 99th percentile of 100 ms and no error.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import httpx

from bench.latency import own_service

BAR_S = 0.1


async def measure(server: str, readers: int, rate: float, seconds: float, preset: str) -> None:
    limits = httpx.Limits(max_connections=readers + 200)
    async with httpx.AsyncClient(base_url=server, limits=limits, timeout=60) as client:
        asked = {"prompt": "a wooden crate", "preset": preset, "seed": int(time.time())}
        path = f"/v1/jobs/{(await client.post('/v1/jobs', json=asked)).raise_for_status().json()['id']}"
        while (await client.get(path)).json()["state"] == "queued":
            await asyncio.sleep(0.2)
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
        state = (await client.get(path)).json()["state"]
        await client.post(f"{path}/cancel")
    middle, late = spent[len(spent) // 2], spent[int(len(spent) * 0.99)]
    print(
        f"{readers} event readers ({broken} broken), {len(spent)} reads at {rate:g} a second; the job {state}"
    )
    met = "met" if late <= BAR_S and not broken and state == "running" else "missed"
    print(
        f"p50 {middle * 1e3:.0f} ms, p99 {late * 1e3:.0f} ms (bar {BAR_S * 1e3:.0f} ms: {met}), "
        f"most {spent[-1] * 1e3:.0f} ms"
    )


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
    parser.add_argument("--server", help="A running service without keys; by default one is started.")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--preset", default="standard")
    given = parser.parse_args()

    def run(server: str) -> None:
        asyncio.run(measure(server, given.readers, given.rate, given.seconds, given.preset))

    if given.server:
        run(given.server)
        return
    with own_service() as serving:
        run(serving.host)


if __name__ == "__main__":
    main()
