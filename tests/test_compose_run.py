"""The compose file without containers: each service's own command and environment, started by hand on servers
of the system's packages (moto in place of the object store), until a draft is made and Prometheus knows it.

What only containers have (images, networks, users, volumes) is not tried by this.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.worker.servers import Postgres, free_port, listening, program
from tests.worker.stack import ROOT, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.postgres, pytest.mark.redis]
DEPLOY = ROOT / "deploy"


@dataclass
class Composed:
    """Processes of the services of `deploy/compose.yaml`; `hosts` says where its addresses are found here."""

    folder: Path
    variables: dict[str, str]
    hosts: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        written = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
        self.services: dict[str, Any] = self._filled(written["services"])

    def _filled(self, written: Any) -> Any:
        """With the values of its variables, in texts alone, as compose does it."""
        match written:
            case dict():
                return {key: self._filled(value) for key, value in written.items()}
            case list():
                return [self._filled(value) for value in written]
            case str():
                text = re.sub(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}", self._value, written)
                return text.replace("$$", "$")
            case _:
                return written

    def _value(self, found: re.Match[str]) -> str:
        name, rule, default = found.groups()
        value = self.variables.get(name, "")
        assert value or rule != "?", f"compose would not start: {name} is not set"
        return value or (default if rule == "-" else "")

    def here(self, text: str) -> str:
        """The same text with the addresses that services have on this machine."""
        for there, address in self.hosts.items():
            text = text.replace(there, address)
        return text

    def environment(self, service: str, **extra: str) -> dict[str, str]:
        """Of a service, and nothing of this project's from outside."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAQUETTE_", "AWS_"))}
        asked = self.services[service].get("environment", {})
        return {**kept, **{name: self.here(str(value)) for name, value in asked.items()}, **extra}

    def command(self, service: str) -> list[str]:
        """Of a service, with this environment's Python."""
        first, *rest = map(str, self.services[service]["command"])
        programs = {"python": [sys.executable], "maquette": [sys.executable, "-m", "worker.cli"]}
        return [*programs.get(first, [first]), *(self.here(word) for word in rest)]

    def start(self, service: str, command: list[str] | None = None, **extra: str) -> subprocess.Popen[bytes]:
        """Starts a service; of ours each has the scratch of its own that a container has."""
        data = self.folder / service
        data.mkdir()
        with (data / "log").open("wb") as log:
            self.processes[service] = subprocess.Popen(
                command or self.command(service), cwd=ROOT, stdout=log, stderr=log,
                env=self.environment(service, MAQUETTE_DATA=str(data), **extra),
            )  # fmt: skip
        return self.processes[service]

    def once(self, service: str, *command: str, **extra: str) -> str:
        """Runs a command in a service's environment, as `docker compose exec` does; what it prints."""
        data = {"MAQUETTE_DATA": str(self.folder / service), **extra}
        run = subprocess.run(
            command, env=self.environment(service, **data), cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def healthy(self, service: str, client: str, command: str) -> None:
        """Asks what the compose file asks; its `client` is `command` here."""
        test = self.services[service]["healthcheck"]["test"][1].replace(client, command)
        asked = lambda: subprocess.run(["sh", "-c", test], env=self.environment(service)).returncode == 0  # noqa: E731
        wait_for(asked, 60, f"{service} is healthy")

    def stop(self) -> None:
        """All of it, as `docker compose stop` does."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()
            process.wait()


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    """Database, broker and object store under the names and passwords of the compose file."""
    import psycopg
    from moto.server import ThreadedMotoServer

    example = (DEPLOY / "example.env").read_text(encoding="utf-8")
    given = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    secret = {name: secrets.token_hex(16) for name, value in given.items() if not value}
    secret["MAQUETTE_API_PUBLIC_URL"] = ""
    made = Composed(tmp_path, given | secret)
    redis, api = free_port(), free_port()
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with Postgres.started() as postgres:
        with psycopg.connect(postgres._dsn("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE maquette")
        store.start()
        made.hosts = {
            "@postgres/": f"@127.0.0.1:{postgres.port}/",
            "@redis:6379": f"@127.0.0.1:{redis}",
            "s3:8333": ":".join(map(str, store.get_host_and_port())),
            "/deploy/make_bucket.py": str(DEPLOY / "make_bucket.py"),
            "valkey-server": f"{program('redis-server')} --port {redis} --bind 127.0.0.1",
            "api:8000": f"127.0.0.1:{api}",
        }
        try:
            made.healthy("postgres", "pg_isready", f"{program('pg_isready')} -h 127.0.0.1 -p {postgres.port}")
            made.start("redis")
            made.healthy("redis", "valkey-cli", f"{program('redis-cli')} -p {redis}")
            yield made
        finally:
            made.stop()
            store.stop()


def test_a_draft_by_the_services_of_the_compose_file(composed: Composed, tmp_path: Path):
    assert composed.start("bucket").wait(60) == 0
    address = f"http://{composed.here('api:8000')}"
    port = address.rpartition(":")[2]
    # In the container the image's own variables say where it listens: to all, at 8000.
    composed.start("api", MAQUETTE_HOST="127.0.0.1", MAQUETTE_PORT=port)
    listening(int(port), composed.processes["api"])
    for service in ("worker-draw", "worker-cpu", "reaper"):
        composed.start(service)

    def key(*arguments: str) -> str:
        maquette = (sys.executable, "-m", "worker.cli", "keys", "create")
        return composed.once("api", *maquette, *arguments).strip()

    metrics_key, ann = key("prometheus", "--scopes", "metrics"), key("ann")
    with httpx.Client(base_url=address, timeout=60, headers={"Authorization": f"Bearer {ann}"}) as client:
        assert httpx.get(f"{address}/v1/jobs").status_code == 401
        asked = {"prompt": "a mossy rock", "preset": "draft", "seed": 3}
        job_id = client.post("/v1/jobs", json=asked).raise_for_status().json()["id"]
        with client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=600) as events:
            said = [line for line in events.iter_lines() if line.startswith("event: ")]
        assert {"event: job", "event: stage", "event: progress"} <= set(said)
        found = client.get(f"/v1/jobs/{job_id}").json()
        assert found["state"] == "succeeded", found["error"]
        glb = next(file for file in found["files"] if file["name"].endswith(".glb"))
        # From the bucket, through the API, by an address that needs no key.
        data = httpx.get(str(client.base_url.join(glb["url"])), timeout=60).raise_for_status().content
        assert (data[:4], len(data)) == (b"glTF", glb["bytes"])
        began = time.monotonic()
        again = client.post("/v1/jobs", json=asked).raise_for_status().json()["id"]
        assert client.get(f"/v1/jobs/{again}").json()["state"] == "succeeded"
        assert time.monotonic() - began < 1.0
        metrics = httpx.get(f"{address}/metrics", headers={"Authorization": f"Bearer {metrics_key}"})
        assert 'maquette_job_ends_total{kind="generate",state="succeeded"} 2' in metrics.text
    _prometheus(composed, tmp_path, metrics_key)


def _prometheus(composed: Composed, folder: Path, key: str) -> None:
    """It reads our configuration and rules, and gets the numbers with its key."""
    (folder / "metrics.key").write_text(key)
    config = composed.here((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    config = config.replace("/run/secrets/metrics_key", str(folder / "metrics.key"))
    config = config.replace("scrape_interval: 15s", "scrape_interval: 1s")
    (folder / "prometheus.yml").write_text(config)
    (folder / "alerts.yml").write_bytes((DEPLOY / "alerts.yml").read_bytes())
    port = free_port()
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    listening(port, composed.start("prometheus", command))

    def asked(path: str, **parameters: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{port}/api/v1/{path}", params=parameters).json()["data"]

    up = lambda: [v["value"][1] for v in asked("query", query="up{job='maquette'}")["result"]] == ["1"]  # noqa: E731
    wait_for(up, 60, "Prometheus gets the numbers")
    done = asked("query", query="maquette_job_ends_total{state='succeeded'}")["result"]
    assert [one["value"][1] for one in done] == ["2"]
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert len([rule for rule in rules if rule["type"] == "alerting"]) >= 10
