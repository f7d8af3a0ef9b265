"""Supervision of the child that runs llama.cpp's server, and what only that engine does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

pytest.importorskip("xllamacpp", reason="the engine llama needs xllamacpp")

from housecall.engines.base import complete
from housecall.engines.llama import LlamaEngine
from housecall.errors import ArtifactError, ConfigError, EngineError, EngineUnavailable
from housecall.types import Sampling

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals"),
]


@pytest.fixture
async def engine(gguf: Path) -> AsyncIterator[LlamaEngine]:
    engine = LlamaEngine(gguf, n_ctx=4096, parallel=2, threads=1)
    await engine.start()
    yield engine
    await engine.close()


async def until(done: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait until the callable ``done`` says so; fail after ``seconds``."""
    started = monotonic()
    while not await done():
        assert monotonic() - started < seconds, "it took too long"
        await asyncio.sleep(0.05)


HOSTILE_TEMPLATE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


async def test_a_hostile_file_never_reaches_the_child(gguf: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="writing a GGUF file needs the extra train")
    from housecall.gguf.files import write_gguf

    raw = bytearray(gguf.read_bytes())
    raw[8:16] = b"\xff" * 8  # the number of tensors
    (tmp_path / "counts.gguf").write_bytes(raw)
    write_gguf(
        tmp_path / "template.gguf",
        {"general.architecture": "llama", "tokenizer.chat_template": HOSTILE_TEMPLATE},
        [],
        [],
    )
    for name, message in (("counts", "not a readable GGUF"), ("template", "not safe to run")):
        engine = LlamaEngine(tmp_path / f"{name}.gguf", n_ctx=256, parallel=1, threads=1)
        with pytest.raises(ArtifactError, match=rf"{name}\.gguf: .*{message}"):
            await engine.start()
        assert engine.pid is None


async def test_a_killed_child_ends_streams_and_comes_back(engine: LlamaEngine) -> None:
    first_pid = engine.pid
    assert first_pid is not None
    async with aclosing(engine.stream([5, 6, 7], Sampling(max_tokens=400))) as stream:
        await anext(stream)
        os.kill(first_pid, signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            async for _ in stream:
                pass
    assert not await engine.ready()
    with pytest.raises(EngineUnavailable):
        await engine.tokenize("hello", special=False)
    await until(engine.ready, 100)
    assert engine.pid != first_pid
    assert (await complete(engine, [5, 6, 7], Sampling(max_tokens=3))).ids


async def test_close_leaves_no_child(engine: LlamaEngine) -> None:
    pid = engine.pid
    assert pid is not None
    await engine.close()
    assert not psutil.pid_exists(pid)


async def test_close_while_starting(gguf: Path) -> None:
    engine = LlamaEngine(gguf)
    start = asyncio.create_task(engine.start())
    while engine.pid is None:
        await asyncio.sleep(0.01)
    await engine.close()
    with pytest.raises(EngineUnavailable):
        await start
    assert not psutil.pid_exists(engine.pid)


PARENT = """
import asyncio, sys
from pathlib import Path
from housecall.engines.llama import LlamaEngine

async def main():
    engine = LlamaEngine(Path(sys.argv[1]), n_ctx=256, parallel=1, threads=1)
    await engine.start()
    print(engine.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_parent_leaves_no_child(gguf: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(gguf)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(timeout=30)


@pytest.mark.parametrize("content", [b"not a model", None], ids=["junk", "cut off"])
async def test_a_broken_file_is_a_clear_error(
    gguf: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content or gguf.read_bytes()[:3_000_000])
    engine = LlamaEngine(path)
    with pytest.raises(ArtifactError, match=r"broken\.gguf: not a readable GGUF file"):
        await engine.start()
    assert not await engine.ready()
    await engine.close()


async def test_what_the_engine_can_not_load_is_said_in_its_words(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="writing a GGUF file needs the extra train")
    from housecall.gguf.files import write_gguf

    path = tmp_path / "hollow.gguf"
    write_gguf(path, {"general.architecture": "llama"}, [], [])
    engine = LlamaEngine(path)
    with pytest.raises(EngineError, match=r"could not load .*hollow\.gguf: ") as failed:
        await engine.start()
    assert "llama.context_length" in failed.value.__notes__[0]
    assert not await engine.ready()
    await engine.close()


async def test_the_engine_wants_its_key_and_hides_it(engine: LlamaEngine) -> None:
    process = engine._process
    assert process is not None
    assert process.key not in " ".join(psutil.Process(process.pid).cmdline())
    assert process.address.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient(base_url=process.address, trust_env=False, timeout=60) as client:
        for method, path in [
            ("POST", "/completion"),
            ("POST", "/tokenize"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/props"),
            ("GET", "/slots"),
        ]:
            answer = await client.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == 401, path
        assert (await client.get("/")).status_code == 404  # no web page


@pytest.mark.parametrize(
    "prompt",
    # After the first one, greedy decoding goes round in circles for 1,000 tokens and more.
    [[5], [300 + i * 7 % 1000 for i in range(4000)]],
    ids=["while answering", "while reading the prompt"],
)
async def test_closing_a_stream_frees_the_slot_of_the_engine(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    started = monotonic()
    await complete(engine, [301 + i * 7 % 1000 for i in range(512)], Sampling(max_tokens=1))
    # How fast this machine is now: the engine notices within two batches of 128, while the whole
    # work would take 8 times as long as these 512. The 3 s are for a machine that halts.
    seconds = 3 * (monotonic() - started) + 3
    sampling = Sampling(temperature=0, max_tokens=4000)
    answer = asyncio.create_task(complete(engine, prompt, sampling))
    await until(lambda: busy(engine), 60)
    answer.cancel()
    await asyncio.wait([answer])

    async def idle() -> bool:
        return not await busy(engine)

    await until(idle, seconds)


async def busy(engine: LlamaEngine) -> bool:
    slots = await engine._connection().request("GET", "/slots")
    return any(slot["is_processing"] for slot in slots)


async def test_characters_of_several_tokens_come_whole(engine: LlamaEngine) -> None:
    schema = {"const": "a😀é👩\N{ZERO WIDTH JOINER}👧b\N{LINE SEPARATOR}c"}
    async with aclosing(engine.stream([5], Sampling(json_schema=schema))) as stream:
        chunks = [chunk async for chunk in stream]
    assert json.loads("".join(chunk.text for chunk in chunks)) == schema["const"]
    assert "😀" in [chunk.text for chunk in chunks]


async def test_a_schema_is_held_to_or_refused(engine: LlamaEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}},
        "required": ["age"],
        "additionalProperties": False,
    }
    answer = await complete(engine, [5, 6, 7], Sampling(json_schema=schema, max_tokens=100))
    assert json.loads(answer.text)["age"] in range(121)
    with pytest.raises(ConfigError, match="json_schema"):
        await complete(engine, [5, 6, 7], Sampling(json_schema={"$ref": "#/nowhere"}))


async def test_a_seed_repeats_a_sampled_answer_and_none_does_not(engine: LlamaEngine) -> None:
    async def sample(seed: int | None) -> tuple[int, ...]:
        sampling = Sampling(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=seed, max_tokens=8)
        return (await complete(engine, [5, 6, 7], sampling)).ids

    assert await sample(2**40) == await sample(2**40)
    assert len({await sample(None) for _ in range(4)}) > 1


async def test_a_repeated_prompt_is_cached(engine: LlamaEngine) -> None:
    prompt = list(range(300, 340))
    await complete(engine, prompt, Sampling(max_tokens=1))
    again = await complete(engine, prompt, Sampling(max_tokens=1))
    assert again.usage.cached_tokens == len(prompt) - 1


async def test_what_the_engine_refuses_is_said(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError, match="invalid tokens"):
        await complete(engine, [10**7], Sampling())
