"""The images, built by buildah on a Debian made here, then started; and what compose.yaml asks for.

Docker itself plays no part: what only Docker does is not tested.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from image_builder import ASK, Buildah, Container, remove

ROOT = Path(__file__).parent.parent
UID = 10001
MODEL = "/models/smollm2.gguf"
KEY = "a-key-of-the-test"
MEGABYTE = 1_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture(scope="module")
def buildah(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Buildah]:
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("images are built here only by root on Debian")
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install buildah debootstrap)")
    folder = tmp_path_factory.mktemp("buildah")
    try:
        buildah = Buildah(folder)
        buildah.add_base(request.config.cache.mkdir("images"))
        yield buildah
    finally:
        remove(folder)


@pytest.fixture(scope="module")
def api_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def api(buildah: Buildah, smollm2_gguf: Path, api_port: int) -> Container:
    data = buildah.folder / "data"
    data.mkdir()
    os.chown(data, UID, UID)
    return Container(
        buildah,
        buildah.build(ROOT, "api"),
        f"--volume={smollm2_gguf}:{MODEL}:ro",
        f"--volume={data}:/data",
        f"--env=HOUSECALL_PORT={api_port}",
        f"--env=HOUSECALL_API_KEYS={KEY}",
    )


@pytest.mark.parametrize("name", ["api", "ui"])
def test_each_service_is_confined_and_reachable_from_this_machine_only(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_services_are_targets_of_the_dockerfile() -> None:
    targets = re.findall(r"^FROM .* AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {service["build"]["target"] for service in services().values()} <= set(targets)


def test_compose_has_no_key_of_its_own_and_no_way_to_write_to_a_run() -> None:
    api = services()["api"]
    assert api["environment"]["HOUSECALL_API_KEYS"].startswith("${HOUSECALL_API_KEYS:?")
    (runs,) = (v for v in api["volumes"] if isinstance(v, dict) and v["target"] == "/runs")
    assert runs["read_only"] is True


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_api_image_is_small_and_without_torch(api: Container) -> None:
    installed = api.root / "opt/housecall"
    (packages,) = installed.glob("lib/python3*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"housecall", "xllamacpp"} <= names
    assert not names & {"torch", "transformers", "streamlit", "pip"}
    assert not [folder for folder in ("build", "root/.cache") if (api.root / folder).exists()]
    assert not [*api.root.glob("var/lib/apt/lists/*"), *api.root.glob("var/cache/apt/**/*.deb")]
    size = sum(file.lstat().st_size for file in installed.rglob("*"))
    assert size < 250 * MEGABYTE


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_api_image_refuses_to_start_without_a_key(api: Container) -> None:
    code, _, log = api.attempt("env", "-u", "HOUSECALL_API_KEYS", "housecall", "serve", MODEL)
    assert code == 1
    assert "set HOUSECALL_API_KEYS" in log


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_api_image_answers_a_chat(api: Container, api_port: int) -> None:
    url = f"http://127.0.0.1:{api_port}"
    asked = {"message": "What helps against a headache?", "max_tokens": 16, "temperature": 0}
    with api.started("serve", MODEL) as server:
        assert set(server.uids()) == {UID}
        api.wait_for("python", "-c", ASK, f"{url}/ready", KEY)
        answer = json.loads(api.ask(f"{url}/chat", KEY, asked))
        assert answer["text"].strip()
        assert answer["usage"]["completion_tokens"] > 0
        assert answer["model"]["gated"] is False
        asked["message"] = "I have crushing chest pain and my left arm is numb."
        assert json.loads(api.ask(f"{url}/chat", KEY, asked))["guard"]["level"] == "emergency"
        saved = json.loads(api.ask(f"{url}/answers/{answer['id']}", KEY))
        assert saved["model"]["sha256"] == answer["model"]["sha256"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ui_image_serves_its_page(buildah: Buildah) -> None:
    port = free_port()
    ui = Container(buildah, buildah.build(ROOT, "ui"), f"--env=STREAMLIT_SERVER_PORT={port}")
    with ui.started() as server:
        assert set(server.uids()) == {UID}
        assert "<title>" in ui.ask(f"http://127.0.0.1:{port}", KEY)
    # It must not have asked anyone on the internet for its address there.
    assert "External" not in ui.log.read_text()
    assert "external" not in ui.log.read_text()
