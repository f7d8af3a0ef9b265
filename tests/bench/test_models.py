"""Folder, engine and server: the same prompts in, comparable figures and the same letters out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from housecall.bench.base import Visit, Work
from housecall.bench.folder import visit_folder
from housecall.bench.gguf import token_bytes, visit_gguf
from housecall.bench.prompts import Asker, majority, read_prompts
from housecall.bench.server import visit_server
from housecall.checks.questions import Question
from housecall.engines.llama_client import started
from housecall.engines.llama_process import LlamaConfig, LlamaProcess
from housecall.engines.tuning import Tuning
from housecall.errors import ConfigError, EngineError
from housecall.gguf.header import read_header
from housecall.pipeline import Run

QUESTIONS = [
    Question("What helps with a cough?", ("Water", "Sand", "Noise", "Dust"), 0),
    Question("What is a fever?", ("A sound", "A high temperature", "A fish"), 1),
    Question("Who can help?", ("A stone", "A doctor"), 1),
]


def nothing(_: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def asker(tiny_run: Run) -> Asker:
    return Asker(tiny_run.path / "merged", "You are a doctor.")


@pytest.fixture(scope="module")
def work(asker: Asker) -> Work:
    return Work(
        threads=1,
        speed=asker.long_prompts(2, 24, 0),
        new_tokens=6,
        together=asker.of_one_length(asker.long_prompts(2, 24, 1)),
        batches=[2],
        answers=[asker.ask(text) for text in read_prompts()[:2]],
        answer_tokens=5,
        letters=asker.letters(QUESTIONS),
        ends=asker.ends,
    )


@pytest.fixture(scope="module")
def gguf(tiny_run: Run) -> Path:
    return tiny_run.path / "variants" / "gguf-f16" / "model.gguf"


def check(visit: Visit, work: Work) -> None:
    for prompt, streamed in zip(work.speed, visit.streamed, strict=True):
        assert streamed.tokens == work.new_tokens
        assert streamed.arrivals == sorted(streamed.arrivals)
        assert streamed.rate > 0
        assert streamed.prompt_tokens >= len(prompt.ids) - 2
    assert [w.tokens for w in visit.whole] == [work.new_tokens] * len(work.speed)
    assert [(t.size, t.tokens) for t in visit.together] == [(2, 2 * work.new_tokens)]
    assert visit.answers is not None
    assert len(visit.answers) == 2


def test_a_folder(tiny_run: Run, work: Work) -> None:
    told: list[str] = []
    visit = visit_folder(str(tiny_run.path / "variants" / "fp16"), work, told.append)
    check(visit, work)
    assert len(told) == work.pieces


def test_a_gguf_file(gguf: Path, work: Work) -> None:
    told: list[str] = []
    visit = visit_gguf(gguf, work, told.append, Tuning(repack=False, map_file=False))
    check(visit, work)
    assert len(told) == work.pieces
    assert visit.settings["tuning"]["map_file"] is False
    assert all(s.engine_seconds for s in visit.streamed)
    assert visit.peak_memory_bytes is not None
    assert visit.peak_memory_bytes > gguf.stat().st_size


def test_letters_are_the_likeliest_next_tokens_in_folder_and_engine(
    tiny_run: Run, gguf: Path, work: Work
) -> None:
    """Both choose what float32 finds likeliest, or what is a near-tie with it."""
    import torch

    from housecall.causal_lm import load_model

    model = load_model(tiny_run.path / "variants" / "fp16", dtype="float32")
    folder = visit_folder(str(tiny_run.path / "variants" / "fp16"), work, nothing).letters
    engine = visit_gguf(gguf, work, nothing, Tuning()).letters
    assert folder is not None
    assert engine is not None
    for place, question in enumerate(work.letters):
        assert len(question.letters) == len(QUESTIONS[place].options)
        with torch.no_grad():
            logits = model(torch.tensor([question.ids])).logits[0, -1]
        scores = logits[question.letters]
        for chosen in (folder[place], engine[place]):
            assert scores[chosen] >= scores.max() - 0.02


def test_the_majority_is_the_commonest_right_letter(work: Work) -> None:
    best = majority(work.letters)
    assert (best.letter, best.right, best.questions) == ("B", 2, 3)


def test_long_prompts_begin_differently_and_have_one_length(asker: Asker) -> None:
    first, second = asker.long_prompts(2, 40, 0), asker.long_prompts(2, 40, 1)
    texts = [p.text[:12] for p in (*first, *second)]
    assert len(set(texts)) == 4
    lengths = {len(p.ids) for p in asker.of_one_length([*first, *second])}
    assert len(lengths) == 1


def test_there_are_twelve_questions_and_more() -> None:
    assert len(read_prompts()) >= 12
    assert len(set(read_prompts())) == len(read_prompts())


def test_a_table_that_is_no_head_is_not_read_for_a_token(gguf: Path) -> None:
    tensors = {t.name: t.nbytes for t in read_header(gguf).tensors}
    assert "output.weight" in tensors
    assert token_bytes(gguf) == sum(tensors.values()) - tensors["token_embd.weight"]


def test_a_server_is_measured_with_the_same_prompts(gguf: Path, work: Work) -> None:
    """The engine's own server, as anybody's llama-server."""
    config = LlamaConfig(
        model=str(gguf),
        n_ctx=512,
        parallel=2,
        threads=1,
        gpu_layers=0,
        cache_reuse=False,
        prompt_cache_mib=0,
    )

    async def measure() -> Visit:
        process = LlamaProcess(config)
        try:
            await started(process)
            return await asyncio.to_thread(
                visit_server, process.address + "/v1", work, nothing, key=process.key
            )
        finally:
            await process.stop()

    visit = asyncio.run(measure())
    assert visit.engine.startswith("server, model ")
    assert len(visit.streamed) == len(work.speed)
    assert all(s.tokens == work.new_tokens for s in visit.streamed)
    assert visit.letters is None
    assert visit.peak_memory_bytes is None


class Strict(BaseHTTPRequestHandler):
    """A server that knows OpenAI's fields only, and counts its refusals."""

    refused = 0
    asked: list[str] = []  # noqa: RUF012
    models: dict[str, Any] = {"data": [{"id": "strict"}]}  # noqa: RUF012

    def do_GET(self) -> None:
        self._send(self.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "ignore_eos" not in body:
            self.asked.append(body["messages"][-1]["content"])
        if "ignore_eos" in body or "cache_prompt" in body:
            type(self).refused += 1
            self._send({"error": {"message": "unknown field"}}, 400)
        elif body.get("stream"):
            piece = {"choices": [{"delta": {"content": "a"}}]}
            counts = {"prompt_tokens": 5, "completion_tokens": 2}
            known = {"prompt_tokens_details": {"cached_tokens": 3}}
            usage = {"choices": [], "usage": counts | known}
            events = [json.dumps(e) for e in (piece, piece, usage)] + ["[DONE]"]
            self._reply(200, "".join(f"data: {e}\n\n" for e in events).encode())
        else:
            message = {"content": " text "}
            self._send({"choices": [{"message": message}], "usage": {"completion_tokens": 2}})

    def _send(self, value: Any, status: int = 200) -> None:
        self._reply(status, json.dumps(value).encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_refuses_fields_is_asked_without_them(work: Work) -> None:
    with serving() as url:
        visit = visit_server(url, work, nothing)
    assert Strict.refused == 1
    assert visit.engine == "server, model strict"
    assert {(s.prompt_tokens, s.tokens) for s in visit.streamed} == {(2, 2)}
    assert visit.answers == ["text", "text"]
    timed = Strict.asked[: -len(visit.answers)]
    assert len(timed) == len(set(timed)) > 2  # it knows none of them from before


def test_a_server_that_is_not_there_or_none_is_one_line(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"^http://127.0.0.1:9 does not answer: "):
        visit_server("http://127.0.0.1:9", work, nothing)
    monkeypatch.setattr(Strict, "models", {})
    with serving() as url, pytest.raises(ConfigError, match="no OpenAI-compatible server"):
        visit_server(url, work, nothing)
