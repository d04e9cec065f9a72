"""The application on a fresh SQLite, with a worker that makes little files at the speed of the database."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from worker import queue
from worker.api.app import create_app
from worker.api.config import ApiConfig, load_config
from worker.api.service import Service
from worker.database import Database
from worker.keys import mint
from worker.migrate import migrate
from worker.queue import FileRef, Outcome
from worker.schema import api_key
from worker.settings import Settings, load_settings


def png(size: int = 64, color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, format="PNG")
    return out.getvalue()


@dataclass
class FakeWorker:
    """Claims and commits as a worker does; what it makes is not worth looking at."""

    service: Service
    folder: Path
    rings: list[str] = field(default_factory=list)
    glb: bytes | None = None
    """What it delivers as every GLB."""
    spz: bytes | None = None
    """The same of splats."""

    def work(self, stages: int = 1000) -> int:
        """Runs what is ready; how many stages."""
        for done in range(stages):
            claim = None
            for name in ("gpu", "cpu"):
                claim = claim or queue.claim(self.service.jobs.database, name, "fake", 1, 60.0)
            if claim is None:
                return done
            queue.renew(
                self.service.jobs.database, claim, lease_s=60.0, progress=0.5, message="half", tell=True
            )
            queue.commit(self.service.jobs.database, claim, self.made(claim), self.service.jobs.store.has)
        return stages

    def fail(self, message: str) -> None:
        claim = queue.claim(self.service.jobs.database, "gpu", "fake", 1, 60.0)
        assert claim is not None
        queue.fail(self.service.jobs.database, claim, "input", message)

    def made(self, claim: queue.Claim) -> Outcome:
        files: dict[str, FileRef] = {}
        match claim.name:
            case "views":
                files["views.png"] = self.file(png(color="blue"), "image/png", "picture")
                count = claim.params["variants"]
                for seed in range(claim.seed, claim.seed + count) if count > 1 else ():
                    files[f"variant-{seed}.png"] = self.file(png(color="teal"), "image/png", "picture")
            case "field" | "surface" | "mesh" | "texture":
                files[f"{claim.name}.png"] = self.file(png(color="orange"), "image/png", "picture")
            case "export":
                for suffix in claim.params["formats"]:
                    data = f"{suffix} of {claim.params['prompt']} {claim.seed}".encode() * 50
                    if suffix == "glb" and self.glb is not None:
                        data = self.glb
                    if suffix == "spz" and self.spz is not None:
                        data = self.spz
                    mime = "model/gltf-binary" if suffix == "glb" else "application/octet-stream"
                    files[f"asset.{suffix}"] = self.file(data, mime, "asset")
            case "preview":
                files["preview.png"] = self.file(png(color="green"), "image/png", "picture")
                files["turntable.mp4"] = self.file(b"film", "video/mp4", "picture")
            case "finish":
                report = {"seed": claim.seed, "asset": {"triangles": 12, "vertices": 8}}
                data = json.dumps(report).encode()
                files["report.json"] = self.file(data, "application/json", "report")
                files["receipt.json"] = self.file(b"{}", "application/json", "report")
        return Outcome(files=files)

    def file(self, data: bytes, mime: str, role: str) -> FileRef:
        path = self.folder / "made"
        path.write_bytes(data)
        return FileRef(self.service.jobs.store.put(path), len(data), mime, role)


@dataclass
class World:
    """An application and who is around it."""

    app: FastAPI
    client: TestClient
    worker: FakeWorker
    service: Service

    def key(self, owner: str = "ann", scopes: tuple[str, ...] = ("read", "write"), **quota: int) -> str:
        """A new key."""
        new = mint(self.service.secret)
        with self.service.jobs.database.write() as connection:
            connection.execute(
                api_key.insert().values(
                    id=new.key_id, mac=new.mac, owner=owner, name="", scopes=list(scopes), quota=quota,
                    created=0.0,
                )
            )  # fmt: skip
        return new.plain

    def bearer(self, *args: Any, **options: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key(*args, **options)}"}


MakeWorld = Callable[..., World]


@contextmanager
def serving_world(world: World, pause_s: float = 0.2) -> Iterator[str]:
    """The application behind a real socket, its worker running a stage every `pause_s`; the address."""
    server = uvicorn.Server(uvicorn.Config(world.app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(pause_s):
            world.worker.work(1)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        stop.set()
        worker.join()
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: the steps take longer than most tests."""
    path = tmp_path_factory.mktemp("database") / "maquette.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture
def make_world(tmp_path: Path, empty_database: Path) -> Iterator[MakeWorld]:
    """`make_world(host="0.0.0.0", keys="required")`: settings of `Settings` and `ApiConfig` by name."""
    opened: list[TestClient] = []

    def make(base: str = "http://127.0.0.1:8000", **given: Any) -> World:
        mine = {name: given.pop(name) for name in list(given) if name in Settings.model_fields}
        settings = load_settings(
            **{"data": tmp_path / f"data{len(opened)}", "min_free_bytes": 0, "device": "cpu", **mine}
        )
        settings.data.mkdir()
        shutil.copy(empty_database, settings.data / "maquette.db")
        rings: list[str] = []
        config: ApiConfig = load_config(**given)
        app = create_app(settings, config, ring=rings.append)
        client = TestClient(app, base_url=base, raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        service = app.state.service
        return World(app, client, FakeWorker(service, tmp_path, rings), service)

    yield make
    for client in opened:
        client.__exit__(None, None, None)
        client.app.state.service.jobs.database.close()  # type: ignore[attr-defined]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """On 127.0.0.1 without keys."""
    return make_world()


@pytest.fixture
def guarded(make_world: MakeWorld) -> World:
    """With keys."""
    return make_world(keys="required")
