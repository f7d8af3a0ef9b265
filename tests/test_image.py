"""The images, built by buildah on a Debian made here, then started; and what compose.yaml asks for.

All that buildah makes lies in one folder, deleted at the end. Only the Debian is kept, in pytest's
cache folder, because it takes a minute to make.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE = "localhost/housecall-base"
UID = 10001
MODEL = "/models/smollm2.gguf"
KEY = "a-key-of-the-test"
SECONDS_TO_START = 60

# Asks URL (with BODY as JSON, if there is one) from inside a container, past any proxy.
ASK = """
import sys, urllib.request as request
url, key, *body = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
asked = request.Request(url, body[0].encode() if body else None, headers)
print(request.build_opener(request.ProxyHandler({})).open(asked).read().decode())
"""


class Buildah:
    """buildah with a storage of its own in ``folder``; it needs no engine and no daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tmp").mkdir()
        self._command = ["buildah", "--storage-driver=vfs"]
        self._command += [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}"]
        self._environment = os.environ | {
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(folder / "tmp"),
        }

    def __call__(self, *arguments: object) -> str:
        """Standard output of a command that has to succeed."""
        code, out, log = self.attempt(*arguments)
        assert code == 0, f"buildah {arguments[0]}: {log[-4000:]}"
        return out.strip()

    def attempt(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        done = subprocess.run(
            [*self._command, *map(str, arguments)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        return done.returncode, done.stdout, done.stderr

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """A command that stays, in a process group of its own."""
        return subprocess.Popen(
            [*self._command, *map(str, arguments)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


class Container:
    """A container of an image, to be run with ``options``."""

    def __init__(self, buildah: Buildah, image: str, *options: object) -> None:
        self._buildah = buildah
        self._options = options
        self._name = buildah("from", "--pull-never", image)
        inspected = json.loads(buildah("inspect", "--type=image", image))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        self.root = Path(buildah("mount", self._name))

    def attempt(self, *command: object) -> tuple[int, str, str]:
        """Run a command inside: exit code, standard output, standard error."""
        return self._buildah.attempt("run", *self._options, self._name, "--", *command)

    def ask(self, url: str, body: dict[str, Any] | None = None) -> str:
        """What a URL answers, asked from inside."""
        words = [json.dumps(body)] if body else []
        code, out, log = self.attempt("python", "-c", ASK, url, KEY, *words)
        assert code == 0, log
        return out

    @contextmanager
    def started(self, *arguments: str) -> Iterator[None]:
        """Run what the image says it runs until it is healthy; then stop it as Docker would."""
        command = [*(self.config.get("Entrypoint") or []), *(arguments or self.config["Cmd"])]
        process = self._buildah.start("run", *self._options, self._name, "--", *command)
        try:
            self._wait_until_healthy(process)
            yield
            server(process.pid).terminate()
            log, _ = process.communicate(timeout=30)
            assert process.returncode == 0, log
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def _wait_until_healthy(self, process: subprocess.Popen[str]) -> None:
        kind, *check = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        deadline = time.monotonic() + SECONDS_TO_START
        while self.attempt(*check)[0] != 0:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the image's health check never passed"


def server(pid: int) -> psutil.Process:
    """The first process inside a container that buildah runs; it must not be root's."""
    inside = psutil.Process(pid).children(recursive=True)
    found = next(child for child in inside if not child.cmdline()[0].startswith("buildah"))
    assert set(found.uids()) == {UID}
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mounts(folder: Path) -> list[str]:
    """What is mounted in a folder, the newest first."""
    targets = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [target for target in reversed(targets) if Path(target).is_relative_to(folder)]


def remove(folder: Path) -> list[str]:
    """Delete a folder, but nothing through a mount left in it; returns those mounts."""
    left = mounts(folder)
    for target in left:
        subprocess.run(["umount", "--lazy", target], check=True)
    shutil.rmtree(folder)
    return left


def debian_archive(cache: Path, folder: Path) -> Path:
    """A small Debian with Python, as an archive that is made once."""
    archive = cache / f"{DEBIAN}.tar"
    if archive.is_file():
        return archive
    command = ["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN]
    done = subprocess.run([*command, str(folder / "debian")], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"debootstrap made no Debian: {done.stdout.strip().splitlines()[-1:]}")
    partial = archive.with_suffix(".partial")
    left_out = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
    tar = ["tar", "--numeric-owner", *left_out, "-C", str(folder / "debian"), "-cf", str(partial)]
    subprocess.run([*tar, "."], check=True)
    partial.rename(archive)
    return archive


def pip_volumes(folder: Path) -> list[str]:
    """Volumes that let pip in a build reach what pip reaches here."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    settings: dict[str, str] = {}
    paths: set[Path] = set()
    # The environment comes first and wins.
    for name, value in re.findall(r"^[^.]+\.([\w-]+)=(.+)$", listed, re.MULTILINE):
        settings.setdefault(name, ast.literal_eval(value))
    for name, value in settings.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # The pages of an index point at files beside it.
                paths.add(path.parent if name.endswith("index-url") else path)
    lines = (f"{name} = {' '.join(value.split())}" for name, value in settings.items())
    pip_conf = folder / "pip.conf"
    pip_conf.write_text("\n".join(["[global]", *lines, ""]))
    volumes = [f"--volume={path}:{path}:ro" for path in sorted(paths)]
    return [f"--volume={pip_conf}:/etc/pip.conf:ro", *volumes]


@pytest.fixture(scope="module")
def buildah(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Buildah]:
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("images are built only as root on Debian")
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)} (apt-get install buildah debootstrap)")
    folder = tmp_path_factory.mktemp("buildah")
    try:
        buildah = Buildah(folder)
        container = buildah("from", "scratch")
        archive = debian_archive(request.config.cache.mkdir("images"), folder)
        buildah("add", "--quiet", container, archive, "/")
        buildah("config", "--env", f"PATH={DEBIAN_PATH}", container)
        buildah("commit", "--quiet", "--rm", container, BASE)
        yield buildah
    finally:
        assert remove(folder) == []


def build(buildah: Buildah, target: str) -> str:
    """Build a target of the Dockerfile; its name."""
    image = f"localhost/housecall-{target}"
    options = ["--format=docker", f"--build-arg=BASE_IMAGE={BASE}", "--pull-never"]
    options += [f"--target={target}", f"--tag={image}", *pip_volumes(buildah.folder)]
    buildah("bud", *options, ROOT)
    return image


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestApi:
    @pytest.fixture(scope="class")
    def port(self) -> int:
        return free_port()

    @pytest.fixture(scope="class")
    def api(self, buildah: Buildah, smollm2_gguf: Path, port: int) -> Container:
        data = buildah.folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, UID, UID)
        options = [f"--volume={smollm2_gguf}:{MODEL}:ro", f"--volume={data}:/data"]
        options += [f"--env=HOUSECALL_PORT={port}"]
        return Container(buildah, build(buildah, "api"), *options)

    def test_refuses_to_start_without_a_key(self, api: Container) -> None:
        code, _, log = api.attempt("housecall", "serve", MODEL)
        assert code == 1
        assert "no API key is set: set HOUSECALL_API_KEYS" in log

    def test_answers_a_chat_and_keeps_it(
        self, api: Container, buildah: Buildah, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keyed = Container(
            buildah, "localhost/housecall-api", *api.options, f"--env=HOUSECALL_API_KEYS={KEY}"
        )
