"""Builds and runs images with buildah, which needs no engine: see test_image.py.

All that it makes lies in one folder. Only the Debian that stands in for the base image is kept,
in pytest's cache folder, because it takes a minute to make.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

DEBIAN = "bookworm"
BASE = "localhost/housecall-base"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_KEPT = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*")
_SECONDS_FOR_A_COMMAND = 1400
_SECONDS_TO_START = 300
_SECONDS_TO_STOP = 150

ASK = """
import sys, urllib.request as request
url, key, *body = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
asked = request.Request(url, body[0].encode() if body else None, headers)
print(request.build_opener(request.ProxyHandler({})).open(asked).read().decode())
"""
"""Python that asks a URL from inside a container, past any proxy: URL, key, what to post if any."""


class Buildah:
    """buildah with a storage of its own in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tmp").mkdir()
        self._command = ["buildah", f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}"]
        self._environment = os.environ | {
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(folder / "tmp"),
        }
        # Much faster than vfs, which copies the whole image for each step, but not to be had
        # inside of some containers.
        has_overlay = self.attempt("--storage-driver=overlay", "info")[0] == 0
        self._command += [f"--storage-driver={'overlay' if has_overlay else 'vfs'}"]

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
            timeout=_SECONDS_FOR_A_COMMAND,
        )
        return done.returncode, done.stdout, done.stderr

    def start(self, log: Path, *arguments: object) -> subprocess.Popen[bytes]:
        """A command that stays, in a process group of its own."""
        with log.open("wb") as file:
            return subprocess.Popen(
                [*self._command, *map(str, arguments)],
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def add_base(self, cache: Path) -> None:
        """A small Debian with Python as the image BASE."""
        container = self("from", "scratch")
        self("add", "--quiet", container, _debian(cache, self.folder / "debian"), "/")
        self("config", "--env", f"PATH={_PATH}", container)
        self("commit", "--quiet", "--rm", container, BASE)

    def build(self, context: Path, target: str) -> str:
        """Build a target of the Dockerfile in ``context``; the image's name."""
        image = f"localhost/housecall-{target}"
        options = ["--format=docker", f"--build-arg=BASE_IMAGE={BASE}", "--pull-never"]
        options += [f"--target={target}", f"--tag={image}", *_pip_volumes(self.folder)]
        self("bud", *options, context)
        return image


class Container:
    """A container of an image; ``options`` are those of ``buildah run``."""

    def __init__(self, buildah: Buildah, image: str, *options: str) -> None:
        self._buildah = buildah
        self._options = options
        self._name = buildah("from", "--pull-never", image)
        inspected = json.loads(buildah("inspect", "--type=image", image))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        self.root = Path(buildah("mount", self._name))
        self.log = buildah.folder / f"{self._name}.log"

    def attempt(self, *command: object) -> tuple[int, str, str]:
        """Run a command inside: exit code, standard output, standard error."""
        return self._buildah.attempt("run", *self._options, self._name, "--", *command)

    def ask(self, url: str, key: str, body: dict[str, Any] | None = None) -> str:
        """What a URL answers, asked from inside."""
        words = [json.dumps(body)] if body else []
        code, out, log = self.attempt("python", "-c", ASK, url, key, *words)
        assert code == 0, f"{log}\n{self.log.read_text()}"
        return out

    @contextmanager
    def started(self, *arguments: str) -> Iterator[psutil.Process]:
        """Run what the image says it runs: from its health check's first pass to Docker's stop.

        Gives the first process inside.
        """
        command = [*(self.config.get("Entrypoint") or []), *(arguments or self.config["Cmd"])]
        process = self._buildah.start(self.log, "run", *self._options, self._name, "--", *command)
        try:
            kind, *check = self.config["Healthcheck"]["Test"]
            assert kind == "CMD"
            self.wait_for(*check)
            first = _first_inside(process.pid)
            yield first
            first.terminate()
            assert process.wait(_SECONDS_TO_STOP) == 0, self.log.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait_for(self, *command: object) -> None:
        """Run a command inside again and again until it succeeds."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while self.attempt(*command)[0] != 0:
            assert time.monotonic() < deadline, self.log.read_text()


def remove(folder: Path) -> None:
    """Delete a folder, and nothing through what is mounted in it."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    for target in reversed([line.split()[1] for line in lines]):
        if Path(target).is_relative_to(folder):
            subprocess.run(["umount", target], check=True)
    shutil.rmtree(folder)


def _first_inside(pid: int) -> psutil.Process:
    """The first process that is not buildah's own."""
    below = psutil.Process(pid).children(recursive=True)
    return next(child for child in below if not child.cmdline()[0].startswith("buildah"))


def _debian(cache: Path, folder: Path) -> Path:
    """A small Debian with Python, as an archive that is made once."""
    archive = cache / f"{DEBIAN}.tar"
    if archive.is_file():
        return archive
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", DEBIAN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"debootstrap made no Debian: {(done.stdout + done.stderr).strip()[-200:]}")
    partial = archive.with_suffix(".partial")
    left_out = [f"--exclude={pattern}" for pattern in _NOT_KEPT]
    tar = ["tar", "--numeric-owner", *left_out, "-C", str(folder), "-cf", str(partial), "."]
    subprocess.run(tar, check=True)
    shutil.rmtree(folder)
    return partial.rename(archive)


def _pip_volumes(folder: Path) -> list[str]:
    """Volumes that let pip in a build reach what pip reaches here."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    settings: dict[str, str] = {}
    paths: set[Path] = set()
    for name, value in re.findall(r"^[^.]+\.([\w-]+)=(.+)$", listed, re.MULTILINE):
        # The environment comes first, and wins.
        settings.setdefault(name, " ".join(ast.literal_eval(value).split()))
    for name, value in settings.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # The pages of an index name files beside it.
                paths.add(path.parent if name.endswith("index-url") else path)
    pip_conf = folder / "pip.conf"
    lines = (f"{name} = {value}" for name, value in settings.items())
    pip_conf.write_text("\n".join(["[global]", *lines, ""]))
    return [f"--volume={pip_conf}:/etc/pip.conf:ro"] + [f"--volume={p}:{p}:ro" for p in paths]
