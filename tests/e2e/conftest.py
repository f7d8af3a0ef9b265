"""One run of the demo, made once by the command that people use, for all end-to-end tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

HOUSECALL = [sys.executable, "-m", "housecall"]


@dataclass(frozen=True)
class Demo:
    """A working folder with ``runs/demo``, and what ``housecall up demo --once`` printed."""

    folder: Path
    stdout: str
    stderr: str
    environment: dict[str, str]

    def housecall(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the demo's folder."""
        return subprocess.run(
            [*HOUSECALL, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2700,
        )

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[str]:
        """A server in a process of its own; gives its URL once it is ready."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [*HOUSECALL, "serve", *arguments, "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url, process)
            yield url
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=150)
        assert "Traceback" not in errors
        assert process.returncode == 0, errors


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server did not get ready in five minutes")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The whole journey: prepare to bench on the built-in model and data, and one answer."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "HOUSECALL_DATA_DIR": str(folder / "data")}
    environment["OMP_NUM_THREADS"] = str(os.cpu_count())
    made = Demo(folder, "", "", environment)
    done = made.housecall("up", "demo", "--once")
    assert done.returncode == 0, done.stderr
    return Demo(folder, done.stdout, done.stderr, environment)
