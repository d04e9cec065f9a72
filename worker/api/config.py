"""Settings of the HTTP side, from the environment (`MAQUETTE_API_...`) beside `worker.settings`."""

from __future__ import annotations

import importlib.util
import os
import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from recon.export import FORMATS
from render.errors import InputError
from worker.settings import DAY_S


class ApiConfig(BaseSettings):
    """Times are in seconds, sizes in bytes. Lists are JSON: `MAQUETTE_API_HOSTS='["assets.example"]'`."""

    model_config = SettingsConfigDict(
        env_prefix="MAQUETTE_API_", env_file=".env", extra="ignore", frozen=True
    )

    keys: Literal["auto", "required", "off"] = "auto"
    """`auto`: required unless the service listens on this machine alone. `off` answers everybody."""
    secret: SecretStr = SecretStr("")
    """Signs keys, links and webhooks; the same in all processes. Empty: `secret` in the data folder."""
    public_url: str = ""
    """Where clients find the service, such as https://assets.example; empty: as they asked for it."""
    hosts: tuple[str, ...] = ()
    """Names the service answers to. Empty: this machine's own when it listens on it alone, else all."""
    private_hosts: tuple[str, ...] = ()
    """Names that `image_url` and webhooks may reach although their addresses are private."""
    rate_storage: str = "memory://"
    """Where requests are counted: `redis://host` when there are several API processes."""
    formats: tuple[str, ...] = ()
    """What the workers can write. Empty: what this machine can."""
    link_life_s: float = Field(DAY_S, ge=60)
    """Signed links hold at least so long."""
    share_life_s: float = Field(30 * DAY_S, ge=60)
    session_life_s: float = Field(DAY_S / 2, ge=60)
    """After signing in on the web page."""
    max_body_bytes: int = Field(120 * 1024**2, ge=1024)
    """Four pictures as data URIs."""
    max_streams: int = Field(1000, ge=1)
    """Event streams that are open at once."""
    docs: bool = True
    """Serve /openapi.json."""


def load_config(**given: object) -> ApiConfig:
    """The settings of this process; `given` goes before the environment. `InputError` names the variable."""
    try:
        return ApiConfig(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "MAQUETTE_API_" + "_".join(str(part) for part in first["loc"][:1]).upper()
        raise InputError(f"{name}: {first['msg']}.") from None


def service_secret(config: ApiConfig, data: Path) -> bytes:
    """The secret that signs: from the settings, or from a file that the first process makes (mode 600)."""
    given = config.secret.get_secret_value()
    if given:
        if len(given) < 32:
            raise InputError("MAQUETTE_API_SECRET must have at least 32 characters: openssl rand -hex 32.")
        return given.encode()
    path = data / "secret"
    try:
        if not path.exists():
            data.mkdir(parents=True, exist_ok=True)
            part = data / f".secret.{os.getpid()}.{secrets.token_hex(4)}.part"
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)  # the first of several processes wins
            except FileExistsError:
                pass
            finally:
                part.unlink()
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The secret {path} cannot be read or made: {error}.") from None
    if len(text) < 32:
        raise InputError(
            f"{path} is damaged: it should hold 64 hexadecimal digits. Delete it to make another."
        )
    return text.encode()


def writable_formats(config: ApiConfig) -> frozenset[str]:
    """Formats that can be asked for."""
    if config.formats:
        return frozenset(config.formats)
    needs = {"fbx": "bpy", "blend": "bpy", "usdz": "pxr"}
    return frozenset(
        name for name in FORMATS if name not in needs or importlib.util.find_spec(needs[name]) is not None
    )
