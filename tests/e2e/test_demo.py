"""The main job, end to end, on the real model and engine: from nothing to a traced answer."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from housecall.config import FORMATS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
Demo = Any  # the fixture's class lives in conftest.py

CHAIN = ["variant", "gate", "merged", "adapter", "dataset", "base"]


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]


def test_the_answer_comes_with_its_chain_of_hashes(demo: Demo) -> None:
    kinds = re.findall(r"(\w+) +[\w./-]+ +sha256 [0-9a-f]{64}", demo.stdout)
    assert [kind for kind in kinds if kind != "imatrix"] == CHAIN
    answer = re.search(r"answer (ans_\w+)", demo.stdout)
    assert answer is not None
    shown = json.loads(demo.housecall("show", answer[1], "--json").stdout)
    hashes = [entry["sha256"] for entry in shown["lineage"]]
    for entry, digest in zip(shown["lineage"], hashes, strict=True):
        assert len(digest) == 64
        assert (demo.folder / "runs/demo" / entry["path"] / "manifest.json").exists()


def test_all_ten_formats_were_made_judged_and_timed(demo: Demo) -> None:
    summary = json.loads(demo.housecall("run", "demo", "--json").stdout)
    assert [v["format"] for v in summary["variants"]] == list(FORMATS)
    for variant in summary["variants"]:
        assert variant["loss"] > 0
        assert variant["tokens_per_second"] > 0
    sizes = {v["format"]: v["bytes"] for v in summary["variants"]}
    assert sizes["gguf-q4_k_m"] == pytest.approx(105.5e6, rel=0.01)
    assert sizes["gguf-q8_0"] == pytest.approx(144.8e6, rel=0.01)
    assert summary["promoted"].startswith("gguf-")
    training = summary["training"]
    assert training["held_out_loss_after"] < training["held_out_loss_before"] - 0.3


def test_a_quick_bench_measures_every_mode_and_keeps_its_schema(demo: Demo) -> None:
    report = json.loads(demo.housecall("bench", "demo", "--quick", "--json").stdout)
    shipped = resources.files("housecall") / "data" / "bench_report.schema.json"
    jsonschema.validate(report, json.loads(shipped.read_text("utf-8")))
    assert [m["name"] for m in report["models"]] == ["base", *FORMATS]
    for model in report["models"]:
        assert model["error"] is None
        assert [b["size"] for b in model["speed"]["batches"]] == report["plan"]["batches"]
        assert len(model["answers"]) == len(report["prompts"]) == 12
        assert model["letters"]["questions"] == report["baseline"]["questions"]
    page = demo.folder / "runs/demo/bench-quick/report.html"
    assert "All models" in page.read_text("utf-8")


def test_every_gguf_is_the_merged_model(demo: Demo) -> None:
    for fmt in (f for f in FORMATS if f.startswith("gguf-")):
        report = json.loads((demo.folder / f"runs/demo/variants/{fmt}/parity.json").read_text())
        assert report["failures"] == []
        assert report["tokens"]["conversations"] >= 60
    exact = json.loads((demo.folder / "runs/demo/variants/gguf-f16/parity.json").read_text())
    assert exact["greedy"]["answers"] == 8
    assert exact["greedy"]["tokens"] > 200


def test_the_gate_has_all_its_figures_and_the_card_shows_them(demo: Demo) -> None:
    report = json.loads((demo.folder / "runs/demo/gate/report.json").read_text())
    figures = {v["format"]: v["figures"] for v in report}
    assert list(figures) == list(FORMATS)
    assert figures["gguf-f16"]["kl_max"] == 0
    for fmt, found in figures.items():
        assert found["loss_interval"][0] < found["loss"] < found["loss_interval"][1]
        assert found["accuracy"] > 0.5  # four options: a model that guesses has a quarter
        if fmt.startswith("gguf-"):
            assert found["engine"]["kl_from_weights"] < 0.02
    card = (demo.folder / "runs/demo/MODEL_CARD.md").read_text()
    assert all(f"`{fmt}`" in card for fmt in FORMATS)
    assert "license: apache-2.0" in card
    assert "emergencies sent to care" in card
    assert (demo.folder / "runs/demo/size-kl.svg").exists()


def test_an_exported_run_is_imported_served_and_removed(demo: Demo, tmp_path: Path) -> None:
    out = str(tmp_path / "demo.zip")
    exported = demo.housecall("export", "demo", "--out", out)
    assert exported.returncode == 0, exported.stderr
    there = str(tmp_path / "imported")
    assert demo.housecall("import", out, "--out", there).returncode == 0
    with demo.serving(there) as url:
        asked = {"prompt": "Hi", "max_tokens": 4}
        found = httpx.post(f"{url}/generate", json=asked, timeout=120).json()
        assert found["model"]["gated"] is True
        lineage = httpx.get(f"{url}/answers/{found['id']}", timeout=120).json()["lineage"]
        assert [e["kind"] for e in lineage if e["kind"] != "imatrix"] == CHAIN
        refused = demo.housecall("rm", there, "--yes")
        assert refused.returncode == 1
        assert "a server is using it" in refused.stderr
    assert demo.housecall("rm", there, "--yes").returncode == 0
    assert not (tmp_path / "imported").exists()


def test_a_second_call_makes_nothing_anew(demo: Demo) -> None:
    summary = json.loads(demo.housecall("run", "demo", "--json").stdout)
    assert all(step["skipped"] for step in summary["steps"])
    again = demo.housecall("up", "demo", "--once")
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr


def test_the_api_answers_chats_and_remembers(demo: Demo) -> None:
    with demo.serving() as url, httpx.Client(base_url=url, timeout=120) as client:
        asked = {"prompt": "How can I soothe a sore throat?", "max_tokens": 24, "temperature": 0}
        first = client.post("/generate", json=asked).json()
        assert first["model"]["gated"] is True
        assert first["usage"]["completion_tokens"] > 0
        chat = client.post("/chat", json={"message": "My knee hurts.", "max_tokens": 16}).json()
        body = {"message": "Since Monday.", "session_id": chat["session_id"], "max_tokens": 16}
        second = client.post("/chat", json={**body, "stream": True})
        events = events_of(second.text)
        assert events[-1][0] == "done"
        assert events[-1][1]["turn"] == 2
        assert events[-1][1]["context"]["turns_in_window"] == 2
        assert client.get("/docs").status_code == 200
    with demo.serving() as url:
        saved = httpx.get(f"{url}/sessions/{chat['session_id']}", timeout=120).json()
        assert [m["role"] for m in saved["messages"]] == ["user", "assistant"] * 2
        lineage = httpx.get(f"{url}/answers/{first['id']}", timeout=120).json()["lineage"]
        assert [e["kind"] for e in lineage if e["kind"] != "imatrix"] == CHAIN


def test_an_emergency_is_answered_before_the_model_speaks(demo: Demo) -> None:
    message = "I have crushing chest pain and I can't breathe"
    with demo.serving() as url:
        chat = httpx.post(
            f"{url}/chat", json={"message": message, "stream": True, "max_tokens": 8}, timeout=120
        )
        events = events_of(chat.text)
        assert events[0][0] == "guard"
        assert events[0][1]["level"] == "emergency"
        assert events[-1][1]["text"].startswith(events[0][1]["message"])


def test_the_openai_client_works_unchanged(demo: Demo) -> None:
    with demo.serving() as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        name = client.models.list().data[0].id
        messages: Any = [{"role": "user", "content": "What helps against a cold?"}]
        whole = client.chat.completions.create(model=name, messages=messages, max_tokens=16)
        assert whole.choices[0].message.content
        stream = client.chat.completions.create(
            model=name, messages=messages, max_tokens=16, stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices)


def test_a_moved_run_is_served_elsewhere_and_a_bare_file_is_not_gated(
    demo: Demo, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(demo.folder / "runs/demo", moved)
    with demo.serving(str(moved)) as url:
        asked = {"prompt": "Hi", "max_tokens": 4}
        found = httpx.post(f"{url}/generate", json=asked, timeout=120).json()
        assert found["model"]["gated"] is True
    promoted = json.loads((moved / "promoted.json").read_text())["format"]
    bare = tmp_path / "bare.gguf"
    shutil.copy(moved / "variants" / promoted / "model.gguf", bare)
    shutil.rmtree(moved)
    with demo.serving(str(bare)) as url:
        asked = {"prompt": "Hi", "max_tokens": 4}
        found = httpx.post(f"{url}/generate", json=asked, timeout=120).json()
        assert found["model"]["gated"] is False


def test_generate_answers_without_a_server(demo: Demo) -> None:
    flags = ["--max-tokens", "12", "--temperature", "0", "--json"]
    answer = json.loads(demo.housecall("generate", "What is a fever?", *flags).stdout)
    assert answer["text"]
    assert answer["model"]["run"] == "demo"
