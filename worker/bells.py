"""The embedded broker: a folder of small files that kombu takes for a broker.

A doorbell is a file that appears by a rename and is taken by an unlink, so it is read whole and by one.
Nothing else is kept: the folder may vanish at any time and comes back with the next bell, and no more bells
than wake everybody are hung up, however many stages wait. kombu's own
`filesystem` transport may read a message that is half written, and holds on to its folder.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, virtual

SCHEME = "bells"
ENOUGH = 64
"""So many bells wake all workers of a machine: who answers one looks for work, and goes on while there is
any. More would only make more to look through."""


class Channel(virtual.Channel):
    """Files in `folder/queue/`, oldest first."""

    @property
    def _folder(self) -> Path:
        return Path(self.connection.client.transport_options["folder"])

    def _names(self, queue: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._folder / queue) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        if self._size(queue) >= ENOUGH:
            return
        folder = self._folder / queue
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        for attempt in range(3):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                part = folder / f".{name}"
                part.write_text(json.dumps(message), encoding="utf-8")
                part.rename(folder / name)
                return
            except FileNotFoundError:  # somebody removes the folder just now
                if attempt == 2:
                    raise

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for name in self._names(queue):
            path = self._folder / queue / name
            try:
                message = json.loads(path.read_text(encoding="utf-8"))
                path.unlink()
            except FileNotFoundError:  # another took it
                continue
            except ValueError:
                path.unlink(missing_ok=True)
                continue
            return message
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            (self._folder / queue / name).unlink(missing_ok=True)
        return len(names)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return True

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        self._purge(queue)


class Transport(virtual.Transport):
    """See the module."""

    Channel = Channel
    driver_type = SCHEME
    driver_name = SCHEME
    implements = virtual.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct"]), heartbeats=False
    )

    def driver_version(self) -> str:
        return "1"


def register() -> None:
    """Makes kombu know `bells://`."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
