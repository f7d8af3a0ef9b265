"""One life of the engine's child process: started, answering, gone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import asdict, dataclass, field
from pathlib import Path

from housecall.engines.tuning import Tuning
from housecall.errors import EngineError

_SCRIPT = Path(__file__).with_name("llama_child.py")
_LOG_CHARACTERS = 16_384
_SECONDS_TO_TERMINATE = 3.0

_ERROR_LINE = re.compile(r"^[\d.]+ E (?P<message>.+)$", re.MULTILINE)
_DEATHS = (
    {
        -signal.SIGILL: "illegal instruction: this build of xllamacpp needs a CPU feature that is "
        "missing here; install another build of it",
        -signal.SIGKILL: "it was killed, most likely for want of memory: take a smaller --ctx, "
        "--parallel or model format",
    }
    if sys.platform != "win32"
    else {}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """What the child is to run. ``n_ctx`` is the window of one conversation, in tokens."""

    model: str
    n_ctx: int
    parallel: int
    threads: int
    gpu_layers: int
    cache_reuse: bool
    prompt_cache_mib: int
    tuning: Tuning = field(default_factory=Tuning)
    embeddings: bool = False
    """Vectors of texts of up to ``n_ctx`` tokens instead of answers."""


class LlamaProcess:
    """A child process running llama.cpp's server on a loopback port of its own."""

    def __init__(self, config: LlamaConfig) -> None:
        self.address = ""
        self.key = secrets.token_urlsafe(32)
        self._config = config
        self._process: Process | None = None
        self._log = ""
        self._log_reader: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        """Path of the model's file."""
        return self._config.model

    @property
    def pid(self) -> int | None:
        """The child's process id once it was started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """True until the child has gone."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the child and wait until its model is loaded.

        Raises EngineError with the child's own words when it dies on the way.
        """
        # -P: run from anywhere, the child must not import what lies in the current folder.
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_SCRIPT), stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._log_reader = asyncio.create_task(self._read_log(process.stderr))
        # On the pipe, because everyone on this machine can read arguments.
        config = {**asdict(self._config), "api_key": self.key, "parent_pid": os.getpid()}
        process.stdin.write(json.dumps(config).encode() + b"\n")
        report = await process.stdout.readline()
        if not report:
            raise self._failure(await self.wait())
        self.address = json.loads(report)["address"]

    async def wait(self) -> int:
        """Wait until the child is gone; its exit code."""
        assert self._process is not None
        assert self._log_reader is not None
        code = await self._process.wait()
        await self._log_reader
        return code

    async def stop(self) -> None:
        """End the child: asked first, then killed."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()  # which is how it is asked
        try:
            await asyncio.wait_for(self._process.wait(), _SECONDS_TO_TERMINATE)
        except TimeoutError:
            self._process.kill()
        await self.wait()

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        while block := await stderr.read(_LOG_CHARACTERS):
            self._log = (self._log + block.decode(errors="replace"))[-_LOG_CHARACTERS:]

    def _failure(self, code: int) -> EngineError:
        said = _ERROR_LINE.search(self._log)
        lines = self._log.strip().splitlines() or [f"exit code {code}"]
        reason = _DEATHS.get(code) or (said["message"] if said else lines[-1])
        error = EngineError(f"the engine could not load {self._config.model}: {reason}")
        error.add_note("The end of the engine's log:\n" + self._log)
        return error
