"""Runs over HTTP: their tables, their pictures, and nothing else of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from housecall.artifact import MANIFEST
from housecall.lineage import PROMOTED
from made_runs import PICTURE, copy_run, write_run
from serving import MODEL, client_for, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("made") / "runs" / "demo")


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder's ``runs/``, with one whole run in it, which is served."""
    folder = tmp_path / "here" / "runs"
    folder.mkdir(parents=True)
    copy_run(made, "copied").rename(folder / "demo")
    monkeypatch.chdir(folder.parent)
    return folder


@pytest.fixture
def app(app_of: Any, runs: Path) -> FastAPI:
    made: FastAPI = app_of()
    file = Path("runs/demo/variants/gguf-q8_0/model.gguf")
    made.state.answerer.model = replace(MODEL, path=file, run="demo")
    return made


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    return client_for(app)


@pytest.fixture
def get_as_written(app: FastAPI) -> Iterator[Callable[[str], tuple[int, bytes]]]:
    """GET a path from a real server, and nothing on the way tidies it up."""
    with serving(app) as address:

        def get(path: str) -> tuple[int, bytes]:
            with closing(HTTPConnection(address.removeprefix("http://"))) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read()

        yield get


async def test_runs_are_listed_the_served_one_first(client: httpx.AsyncClient, runs: Path) -> None:
    other = copy_run(runs / "demo", "other")
    (other / PROMOTED).unlink()
    copy_run(runs / "demo", ".gone.removed")
    found = (await client.get("/runs")).json()["runs"]
    assert [(run["name"], run["served"]) for run in found] == [("demo", True), ("other", False)]
    demo, other_run = found
    assert demo["promoted"]["format"] == "gguf-q8_0"
    assert other_run["promoted"] is None
    assert demo["made"] == ["base", "dataset", "adapter", "merged", "gate", "bench"]
    assert demo["variants"] == [
        {"format": "gguf-q4_0", "bytes": 4},
        {"format": "gguf-q8_0", "bytes": 4},
    ]
    assert demo["problem"] is None


async def test_no_run_at_all_is_an_empty_list(
    app_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with client_for(app_of()) as client:
        assert (await client.get("/runs")).json() == {"runs": []}
        answer = await client.get("/runs/demo")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "there is no run 'demo' here (runs: none)"


async def test_a_run_is_told_with_its_tables(client: httpx.AsyncClient) -> None:
    run = (await client.get("/runs/demo")).json()
    refused, passed = run["table"]
    assert (refused["passed"], refused["failed"], refused["causes"]) == (
        False,
        ["KL 0.2 > 0.1"],
        ["coarse"],
    )
    assert (passed["passed"], passed["speed"]) == (True, {"tokens_per_second": 12.5})
    assert refused["speed"] is None
    assert passed["figures"]["loss_interval"] == [1.8, 2.0]
    assert passed["figures"]["kl_max"] is None  # JSON knows no infinity
    assert run["training"]["curve"][1] == {"step": 2, "loss": 2.0, "held_out_loss": 2.5}
    assert run["training"]["metrics"]["steps"] == 2
    assert run["bench"] == {"version": 1, "models": []}
    kinds = [entry["kind"] for entry in run["lineage"]]
    assert kinds == ["variant", "merged", "adapter", "dataset", "base"]
    assert all(len(entry["sha256"]) == 64 for entry in run["lineage"])
    assert {plot["path"] for plot in run["plots"]} == {
        "adapter/loss.svg",
        "bench/speed.svg",
        "size-kl.png",
    }


async def test_no_place_of_this_machine_is_told(client: httpx.AsyncClient, runs: Path) -> None:
    (copy_run(runs / "demo", "broken") / PROMOTED).write_text("{", encoding="utf-8")
    for path in ("/runs", "/runs/demo", "/runs/broken"):
        text = (await client.get(path)).text
        assert str(runs.parent) not in text
        assert "/home/someone" not in text


async def test_a_variant_made_anew_has_no_verdict(client: httpx.AsyncClient, runs: Path) -> None:
    manifest = runs / "demo" / "variants" / "gguf-q4_0" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"seed": null', '"seed": 7'))
    row = (await client.get("/runs/demo")).json()["table"][0]
    assert (row["format"], row["passed"], row["figures"]) == ("gguf-q4_0", None, None)


async def test_a_run_in_the_making_is_told_as_far_as_it_is(
    client: httpx.AsyncClient, runs: Path
) -> None:
    young = copy_run(runs / "demo", "young")
    for part in ("bench", "gate", "variants", "merged"):
        (young / part).rename(young / f".{part}")
    (young / PROMOTED).unlink()
    run = (await client.get("/runs/young")).json()
    assert (run["made"], run["table"], run["bench"]) == (["base", "dataset", "adapter"], [], None)
    assert [entry["kind"] for entry in run["lineage"]] == ["adapter", "dataset", "base"]
    assert run["problem"] is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (f"gate/{MANIFEST}", "{"),
        (f"gate/{MANIFEST}", '{"files": []}'),
        (f"gate/{MANIFEST}", "[]"),
        (f"adapter/{MANIFEST}", '{"files": [], "created": 1, "kind": "adapter", "metrics": 5}'),
        ("adapter/metrics.jsonl", "not json"),
        ("bench/report.json", "\x00"),
        (PROMOTED, "[]"),
    ],
)
async def test_a_broken_run_says_so_and_hides_no_other(
    client: httpx.AsyncClient, runs: Path, file: str, content: str
) -> None:
    (copy_run(runs / "demo", "broken") / file).write_text(content, encoding="utf-8")
    answer = await client.get("/runs/broken")
    assert answer.status_code == 200
    assert answer.json()["problem"]
    listed = (await client.get("/runs")).json()["runs"]
    assert {run["name"]: run["problem"] for run in listed}["demo"] is None


async def test_pictures_are_served_and_can_run_nothing(client: httpx.AsyncClient) -> None:
    plots = (await client.get("/runs/demo")).json()["plots"]
    for plot in plots:
        answer = await client.get(f"/runs/demo/plots/{plot['path']}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == plot["media_type"]
        assert answer.headers["content-security-policy"].endswith("sandbox")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == b"\x89PNG"
    assert (await client.get("/runs/demo/plots/adapter/loss.svg")).text == PICTURE


NAMES = (
    "..",
    "../here/runs/demo",
    "../../etc",
    "/etc",
    "demo/../other",
    "demo\x00",
    "",
    ".",
    "demo/",
    "DEMO",
    "de%6do/..",
    "x" * 5000,
    "\u202edemo",
)
PLOTS = (
    "recipe.yaml",
    "promoted.json",
    "adapter/manifest.json",
    "adapter/metrics.jsonl",
    "../demo/size-kl.png",
    "../secret.png",
    "adapter/../size-kl.png",
    "adapter//loss.svg",
    "./size-kl.png",
    "/etc/passwd",
    "",
    "size-kl.png\x00.svg",
    "SIZE-KL.PNG",
)


def test_names_are_looked_up_and_never_followed(
    get_as_written: Callable[[str], tuple[int, bytes]],
) -> None:
    assert get_as_written("/runs/demo")[0] == 200
    for name in NAMES:
        for rest in ("", "/plots/size-kl.png"):
            path = f"/runs/{quote(name, safe='')}{rest}"
            status, _ = get_as_written(path)
            # Where a name is empty, the slash leads to the list of all.
            assert status in ((307, 404) if name in ("", "demo/") else (404,)), path


def test_nothing_but_pictures_of_the_run_is_read(
    get_as_written: Callable[[str], tuple[int, bytes]], runs: Path
) -> None:
    (runs / "secret.png").write_bytes(b"not for you")
    assert get_as_written("/runs/demo/plots/size-kl.png")[0] == 200
    for plot in PLOTS:
        for spelled in (quote(plot), quote(plot, safe=""), quote(quote(plot, safe=""), safe="")):
            status, content = get_as_written(f"/runs/demo/plots/{spelled}")
            assert status == 404, spelled
            assert b"not for you" not in content


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
async def test_a_link_that_leads_out_of_a_run_is_no_picture(
    client: httpx.AsyncClient, runs: Path
) -> None:
    (runs / "secret.png").write_bytes(b"not for you")
    (runs / "demo" / "gate" / "kl.png").symlink_to(runs / "secret.png")
    plots = (await client.get("/runs/demo")).json()["plots"]
    assert "gate/kl.png" not in {plot["path"] for plot in plots}
    assert (await client.get("/runs/demo/plots/gate/kl.png")).status_code == 404


async def test_a_run_elsewhere_is_found_beside_the_one_that_is_served(
    app: FastAPI, client: httpx.AsyncClient, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_run(runs / "demo", "other")
    file = other / "variants" / "gguf-q8_0" / "model.gguf"
    app.state.answerer.model = replace(MODEL, path=file, run="other")
    monkeypatch.chdir(runs.parent.parent)
    found = (await client.get("/runs")).json()["runs"]
    assert {run["name"]: run["served"] for run in found} == {"other": True, "demo": False}


async def test_a_key_is_asked_for(app_of: Any, runs: Path) -> None:
    async with client_for(app_of(api_keys=("secret",))) as client:
        for path in ("/runs", "/runs/demo", "/runs/demo/plots/size-kl.png"):
            assert (await client.get(path)).status_code == 401
            with_key = await client.get(path, headers={"Authorization": "Bearer secret"})
            assert with_key.status_code == 200
