"""Private servers for tests, from the system's packages (scripts/test-servers.sh installs them)."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that nobody listens on now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of a server's program; the test is skipped when it is not installed."""
    folders = [os.environ["PATH"], "/usr/sbin", "/usr/lib/rabbitmq/bin"]
    folders += [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=":".join(folders))
    if found is None:
        pytest.skip(f"{name} is not installed; scripts/test-servers.sh installs it")
    return found


def listening(port: int, process: subprocess.Popen[bytes] | None = None, timeout_s: float = 180.0) -> None:
    """Waits until somebody listens. RabbitMQ takes minutes where the processor is much wanted."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        assert process is None or process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}")


@contextlib.contextmanager
def disk_of(megabytes: int, folder: Path) -> Iterator[Path]:
    """A disk of this size, at a folder that is made; the test is skipped where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("this user may not mount a small disk")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(disk: Path) -> Path:
    """A file that takes all that is left; delete it to make room."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096) == 4096:
            pass
    return filler


@dataclass
class Postgres:
    """A Postgres server that can be killed and started again."""

    folder: Path
    port: int
    user: str
    process: subprocess.Popen[bytes] | None = None

    @staticmethod
    @contextlib.contextmanager
    def started(disk: Path | None = None) -> Iterator[Postgres]:
        """A server whose data lie on a disk, or in the system's temporary folder."""
        initdb = program("initdb")
        user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        # Not in pytest's folder, which is root's alone: Postgres refuses to run as root.
        folder = Path(tempfile.mkdtemp(prefix="maquette-postgres-", dir=disk))
        server = Postgres(folder, free_port(), user)
        if os.getuid() == 0:
            shutil.chown(folder, user)
        command = [initdb, "-D", str(folder), "-A", "trust", "-U", "maquette", "--no-sync"]
        try:
            subprocess.run(server._as_user(command), check=True, capture_output=True, cwd="/")
            server.start()
            try:
                yield server
            finally:
                server.stop()
        finally:
            shutil.rmtree(folder)

    def start(self) -> None:
        command = [
            program("postgres"), "-D", str(self.folder), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={self.folder}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            self._as_user(command), cwd="/", stderr=subprocess.DEVNULL, start_new_session=True
        )
        listening(self.port, self.process)
        self._ready()

    def stop(self) -> None:
        """An immediate shutdown: what is not committed is gone, and connections break."""
        if self.process is not None and self.process.poll() is None:
            pid = int((self.folder / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGQUIT)
            self.process.wait(30)

    def use_up_log(self) -> None:
        """Asks for a new file of the write-ahead log; a server whose disk is full does not survive that."""
        import psycopg

        with (
            contextlib.suppress(psycopg.OperationalError, psycopg.errors.InternalError_),
            psycopg.connect(self._dsn("postgres"), autocommit=True) as connection,
        ):
            for _ in range(8):  # some files are kept for later
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("SELECT pg_logical_emit_message(false, 'test', 'one more')")

    def new_database(self) -> str:
        """URL of a fresh database."""
        import psycopg

        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://maquette@127.0.0.1:{self.port}/{name}"

    def _dsn(self, name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=maquette dbname={name} connect_timeout=5"

    def _ready(self) -> None:
        import psycopg

        until = time.monotonic() + 180  # after a kill it syncs every file of all databases
        while True:
            try:
                psycopg.connect(self._dsn("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def _as_user(self, command: Sequence[str]) -> list[str]:
        if os.getuid() == 0:
            return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        return list(command)


@dataclass
class Redis:
    """A Redis server without persistence: killed, it forgets everything."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @staticmethod
    @contextlib.contextmanager
    def started(folder: Path) -> Iterator[Redis]:
        server = Redis(folder, free_port())
        try:
            server.start()
            yield server
        finally:
            server.kill()

    def start(self) -> None:
        command = [
            program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", str(self.folder),
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        listening(self.port, self.process)

    def kill(self) -> None:
        """kill -9, and its data with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class RabbitMq:
    """A RabbitMQ node with a name, port and folder of its own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @staticmethod
    @contextlib.contextmanager
    def started(folder: Path) -> Iterator[RabbitMq]:
        server = RabbitMq(folder, free_port())
        try:
            server.start()
            yield server
        finally:
            server.kill()

    def start(self) -> None:
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"maquette{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-setcookie maquette",
        }
        # The script of the Debian package changes to the user rabbitmq; the one behind it does not.
        server = "/usr/lib/rabbitmq/bin/rabbitmq-server"
        command = [server if os.path.exists(server) else program("rabbitmq-server")]
        self.process = subprocess.Popen(
            command, env=environment, cwd=self.folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listening(self.port, self.process)

    def kill(self) -> None:
        """kill -9, and its data with it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            # Erlang's machine may have left the group of the script that started it.
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if f"maquette{self.port}@localhost".encode() in path.read_bytes():
                        os.kill(int(path.parent.name), 9)
        shutil.rmtree(self.folder / "data", ignore_errors=True)
