"""`python -m worker.api`: serves the API and the web page, by the settings of the environment."""

from __future__ import annotations

import uvicorn

from worker.api.app import create_app
from worker.api.config import load_config
from worker.database import Database
from worker.identity import die_with_parent
from worker.logs import set_up_logs
from worker.migrate import migrate
from worker.settings import load_settings


def main() -> None:
    die_with_parent()
    settings = load_settings()
    set_up_logs(settings)
    migrate(Database(settings.database))
    uvicorn.run(
        create_app(settings, load_config()),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )


if __name__ == "__main__":
    main()
