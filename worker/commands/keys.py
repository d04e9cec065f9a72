"""`maquette keys`: API keys of a service, on the machine that has its database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from render.errors import InputError

if TYPE_CHECKING:
    from worker.database import Database


def create(
    owner: Annotated[str, typer.Argument(help="Who it is for: a user, a team, a program.")],
    scopes: Annotated[str, typer.Option(help="Of read, write, metrics, admin; with commas.")] = "read,write",
    name: Annotated[str, typer.Option(help="For your own lists.")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="0 or nothing: no limit.")] = 600,
    creates_per_minute: Annotated[int | None, typer.Option(min=1)] = 60,
    unfinished_jobs: Annotated[int | None, typer.Option(min=1)] = 2000,
    jobs_per_day: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Make a key. It is shown this once; the database keeps a hash."""
    import re
    from dataclasses import asdict

    from pipeline.commands import names_of, print_line
    from worker.api.config import load_config, service_secret
    from worker.keys import Quota, checked_scopes, mint
    from worker.schema import api_key
    from worker.settings import load_settings

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", owner):
        raise InputError(f"The owner must be a short name of a-z, 0-9 and . _ @ -, not {owner[:80]!r}.")
    allowed = checked_scopes(list(names_of(scopes)))
    quota = Quota(requests_per_minute, creates_per_minute, unfinished_jobs, jobs_per_day)
    settings = load_settings()
    new = mint(service_secret(load_config(), settings.data))
    with _database().write() as connection:
        connection.execute(
            api_key.insert().values(
                id=new.key_id, mac=new.mac, owner=owner, name=name[:80], scopes=list(allowed),
                quota=asdict(quota), created=time.time(),
            )
        )  # fmt: skip
    print_line(new.plain)


def list_keys() -> None:
    """All keys, without their secrets."""
    from sqlalchemy import select

    from pipeline.commands import print_line
    from worker.schema import api_key

    with _database().read() as connection:
        rows = connection.execute(select(api_key).order_by(api_key.c.created)).all()
    for row in rows:
        state = "active" if row.revoked is None else "revoked"
        made = time.strftime("%Y-%m-%d", time.gmtime(row.created))
        print_line(
            f"{row.id}  {state:<8} {made}  {row.owner:<20} {','.join(row.scopes):<20} {row.name}".rstrip()
        )


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `maquette keys list` shows it.")],
) -> None:
    """End a key at once; links that it made hold until their time."""
    from sqlalchemy import update

    from pipeline.commands import print_line
    from worker.schema import api_key

    wanted = key_id.removeprefix("mq_").partition(".")[0]
    with _database().write() as connection:
        found = connection.execute(
            update(api_key)
            .where(api_key.c.id == wanted, api_key.c.revoked.is_(None))
            .values(revoked=time.time())
        )
    if found.rowcount != 1:
        raise InputError(f"There is no active key {wanted[:40]}. See: maquette keys list")
    print_line(f"{wanted} is revoked.")


def _database() -> Database:
    from worker.database import Database
    from worker.migrate import migrate
    from worker.settings import load_settings

    database = Database(load_settings().database)
    migrate(database)
    return database
