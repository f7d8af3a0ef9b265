"""Settings come from the environment, and flags win."""

from __future__ import annotations

from pathlib import Path

import pytest

from housecall.errors import ConfigError
from housecall.settings import load_settings


def test_defaults_listen_on_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", 8000, ())
    assert "*" not in settings.hosts


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSECALL_PORT", "9000")
    monkeypatch.setenv("HOUSECALL_CTX", "4096")
    settings = load_settings(port=9001, ctx=None)
    assert (settings.port, settings.ctx) == (9001, 4096)


@pytest.mark.parametrize("value", ["a, b", '["a", "b"]'])
def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOUSECALL_API_KEYS", value)
    assert load_settings().api_keys == ("a", "b")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.9", "example.org"])
def test_another_host_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="HOUSECALL_API_KEYS"):
        load_settings(host=host)
    assert load_settings(host=host, api_keys=("secret",)).hosts == ("*",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert load_settings(host=host).loopback


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"port": 70000}, "HOUSECALL_PORT"),
        ({"port": "x"}, "HOUSECALL_PORT"),
        ({"request_timeout": 0}, "HOUSECALL_REQUEST_TIMEOUT"),
        ({"api_keys": ("",)}, "HOUSECALL_API_KEYS"),
        ({"prot": 1}, "prot"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(flags: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(**flags)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_and_passwords_are_not_shown() -> None:
    settings = load_settings(api_keys=("secret",), database_url="postgresql://u:secret@h/d")
    assert "secret" not in repr(settings)


def test_the_database_lies_in_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert load_settings().data_dir == Path("/somewhere/housecall")
    assert load_settings(data_dir="/else where").database.endswith("/else where/housecall.db")


def test_deterministic_answers_one_at_a_time() -> None:
    assert load_settings(parallel=4).slots == 4
    assert load_settings(parallel=4, deterministic=True).slots == 1
