"""Settings of a server: environment ``HOUSECALL_*``, and flags that win over it."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from housecall.errors import ConfigError

_PREFIX = "HOUSECALL_"
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


def _split(value: object) -> object:
    """``a,b`` out of the environment; a JSON list is taken too."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


_List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Key = Annotated[str, Field(min_length=1)]
_Keys = Annotated[tuple[_Key, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """How Housecall serves. Lists are separated by commas in the environment.

    Read them with ``load_settings``, which makes one clear line of what is wrong.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    api_keys: _Keys = Field((), repr=False, description="keys that clients must send as Bearer")
    allowed_hosts: _List = Field(
        (), description="Host headers to answer; default: loopback names on a loopback host, else *"
    )
    cors_origins: _List = Field((), description="web origins that may call the API")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="largest request body")

    ctx: int = Field(2048, ge=64, description="window of one conversation, in tokens")
    parallel: int = Field(4, ge=1, le=256, description="answers made at once")
    queue: int = Field(16, ge=0, description="requests that may wait for a place")
    request_timeout: float = Field(300.0, gt=0, description="longest answer, in seconds")
    send_timeout: float = Field(
        30.0, gt=0, description="seconds until a client that reads nothing of a stream is dropped"
    )
    drain_seconds: float = Field(
        20.0, ge=0, description="how long answers may go on after a signal to stop"
    )
    engine_url: str = Field(
        "", description="an OpenAI-compatible server that answers instead of the engine here"
    )
    engine_key: str = Field("", repr=False, description="the key that server asks for")
    threads: int | None = Field(None, ge=1, description="threads of the engine; default all cores")
    gpu_layers: int = Field(0, ge=0, description="layers of the model that go to a GPU")
    deterministic: bool = Field(
        False,
        description="one answer at a time, no use of the prompt cache, and seed 0 where a request "
        "has none: the same request gives the same text",
    )

    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("housecall", appauthor=False),
        description="folder of the database",
    )
    database_url: str = Field(
        "", repr=False, description="SQLAlchemy URL; default: SQLite in data_dir"
    )

    retention_days: float | None = Field(
        None, gt=0, description="erase sessions this long after their last use; default never"
    )
    undo_seconds: float = Field(
        10.0, ge=0, description="how long a deleted session can be restored before it is erased"
    )
    long_chat: Literal["pin", "drop", "refuse"] = Field(
        "pin",
        description="when a chat outgrows its window: oldest turns leave and their medical facts "
        "stay; they leave; the request is refused",
    )

    country: str | None = Field(None, description="country whose emergency numbers are given")
    after_emergency: Literal["continue", "stop"] = Field(
        "stop", description="whether the model adds to an emergency message"
    )
    after_crisis: Literal["continue", "stop"] = Field(
        "stop", description="whether the model adds to a crisis message"
    )

    off_topic: Literal["allow", "warn", "refuse"] = Field(
        "allow", description="what becomes of a message that is plainly not about health"
    )
    guard_learned: bool = Field(
        True, description="whether the guard's second stage reads with the rules"
    )
    guard_output: Literal["mark", "replace", "cut"] = Field(
        "mark", description="what becomes of a dangerous sentence of the model"
    )

    log_format: Literal["json", "console"] = "json"
    log_text: bool = Field(False, description="write messages and answers to the log")

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if not self.loopback and not self.api_keys:
            raise ValueError(
                f"host {self.host} is reachable from other machines and no API key is set: "
                f"set {_PREFIX}API_KEYS, or listen on 127.0.0.1"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The Host headers that are answered; ``*`` is any.

        On loopback only its names are, so that no web page can reach the API by DNS rebinding;
        elsewhere the API key that is asked for does the same.
        """
        return self.allowed_hosts or (_LOOPBACK_HOSTS if self.loopback else ("*",))

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        if self.database_url:
            return self.database_url
        from sqlalchemy import URL  # here: every command reads settings, few open a database

        file = str(self.data_dir.expanduser() / "housecall.db")
        return URL.create("sqlite", database=file).render_as_string()

    def stops_after(self, level: str) -> bool:
        """Whether the model says nothing after the guard's message of this level."""
        policy = {
            "emergency": self.after_emergency,
            "crisis": self.after_crisis,
            "off_topic": "stop" if self.off_topic == "refuse" else "continue",
        }
        return policy.get(level) == "stop"

    @property
    def slots(self) -> int:
        """Answers the engine makes at once: company changes what a batch computes."""
        return 1 if self.deterministic else self.parallel


def load_settings(**flags: Any) -> Settings:
    """Settings from the environment and ``flags``, which win; a flag that is None is not given.

    Raises ConfigError in one line.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError("; ".join(_line(detail) for detail in error.errors())) from None


def _line(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    name = str(detail["loc"][0])
    return f"setting {name} ({_PREFIX}{name.upper()}): {message}"
