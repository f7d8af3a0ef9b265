"""The page in a real browser: what a person sees, and that nothing leaves this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from housecall.ui.launch import command
from serving import Held

pytest.importorskip("streamlit", reason="needs the extra ui")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
REPLY = "Rest, drink enough, and ![look](http://example.com/pixel.png) see a doctor."
EXPANDER = "What stands behind this answer"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM} (apt install chromium)"),
]


@pytest.fixture
def engine() -> Held:
    return Held([REPLY], first=8, held=False)


@pytest.fixture
def address(serve: Callable[..., str], engine: Held, tmp_path: Path) -> Iterator[str]:
    """The page, served as the launcher does."""
    environment = {**os.environ, "HOUSECALL_URL": serve(engine)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (
        (tmp_path / "streamlit.log").open("wb") as log,
        subprocess.Popen(command(port), env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_for(f"{url}/_stcore/health")
            yield url
        finally:
            process.terminate()


@pytest.fixture
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield launched
        launched.close()


def test_a_chat_in_the_browser(
    browser: playwright.Browser, address: str, engine: Held, tmp_path: Path
) -> None:
    engine.held = True
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    hosts = _hosts_asked(page)
    _say(page, address, "I have chest pain")
    emergency = page.get_by_text("Call 112 now.")
    emergency.wait_for()
    page.get_by_text("Rest, drink").wait_for()
    assert page.get_by_text(EXPANDER).count() == 0, "the text was not streamed"
    engine.held = False
    page.get_by_text(EXPANDER).click()
    page.get_by_text("gated").last.wait_for()
    page.get_by_text("abababababab").wait_for()
    answer = page.get_by_text("Rest, drink").bounding_box()
    assert emergency.bounding_box()["y"] < answer["y"]
    page.screenshot(path=tmp_path / "desktop.png")
    assert hosts == {"127.0.0.1"}


def test_the_page_on_a_phone(browser: playwright.Browser, address: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    hosts = _hosts_asked(page)
    _say(page, address, "What helps against a sore throat? " + "x" * 80)
    page.get_by_text(EXPANDER).click()
    page.get_by_text("abababababab").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it scrolls sideways"
    page.screenshot(path=tmp_path / "phone.png")
    assert hosts == {"127.0.0.1"}


def test_stopping_ends_the_answer(browser: playwright.Browser, address: str, engine: Held) -> None:
    engine._replies = ["word " * 400]
    engine.held = True
    page = browser.new_page()
    _say(page, address, "Tell me all")
    page.get_by_text("word word").wait_for()
    page.get_by_test_id("stChatInputStopButton").click()
    deadline = time.monotonic() + 60
    while engine.active and time.monotonic() < deadline:
        # The page notices when it gets a token; an answer at this pace goes on for longer.
        engine.first += 1
        time.sleep(0.3)
    assert not engine.active
    assert page.get_by_text("word word").is_visible()


def test_the_page_notices_by_itself_that_the_model_is_ready(
    browser: playwright.Browser, address: str, engine: Held
) -> None:
    engine.available = False
    page = browser.new_page()
    page.goto(address)
    loading = page.get_by_text("the model is loading")
    loading.wait_for()
    engine.available = True
    loading.wait_for(state="detached")


def _say(page: playwright.Page, address: str, message: str) -> None:
    page.goto(address)
    box = page.get_by_test_id("stChatInputTextArea")
    box.fill(message)
    box.press("Enter")


def _hosts_asked(page: playwright.Page) -> set[str]:
    """The hosts that the page asks for anything from now on; data of the page itself has none."""
    hosts: set[str] = set()

    def note(url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob"):
            hosts.add(str(urlsplit(url).hostname))

    page.on("request", lambda request: note(request.url))
    page.on("websocket", lambda web_socket: note(web_socket.url))
    return hosts


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer")
