from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import housecall
from housecall.engines.fake import FakeEngine
from housecall.errors import EngineError

AppTest = pytest.importorskip("streamlit.testing.v1", reason="needs the extra ui").AppTest

APP = Path(housecall.__file__).parent / "ui" / "app.py"
Serve = Callable[..., str]


def open_page() -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=100).run()
    assert not page.exception
    return page


def say(page: AppTest, message: str) -> AppTest:
    page.chat_input[0].set_value(message).run()
    assert not page.exception
    return page


def shown(block: Any) -> list[tuple[str, str]]:
    """Type and unescaped text of what is in a block, from top to bottom."""
    found = []
    for child in block.children.values():
        if hasattr(child, "children"):
            if child.type == "expander":
                found.append(("expander", child.label))
            found += shown(child)
        elif child.type != "empty":
            found.append((child.type, re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", str(child.value))))
    return found


def answers(page: AppTest) -> list[list[tuple[str, str]]]:
    return [shown(message) for message in page.chat_message if message.name == "assistant"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_says_what_it_is_not_and_which_model_answers(serve: Serve) -> None:
    serve()
    page = open_page()
    assert page.title[0].value == "Housecall"
    assert "not a diagnosis" in page.markdown[0].value
    assert "call your local emergency number" in page.markdown[0].value
    sidebar = shown(page.sidebar)
    assert ("markdown", "**demo** · gguf-q4_k_m :green-badge[gated]") in sidebar
    assert any("Ready" in text for _, text in sidebar)


def test_answers_with_what_stands_behind_it(serve: Serve) -> None:
    serve()
    page = say(open_page(), "hello")
    [answer] = answers(page)
    assert answer[0] == ("markdown", "you said: hello")
    assert ("expander", "What stands behind this answer") in answer
    facts = "\n".join(text for _, text in answer)
    for fact in ("demo", "gguf-q4_k_m", "gated", "`abababababab`", "tokens/s", "first token after"):
        assert fact in facts
    assert "nothing found · rules scripted-1" in facts
    assert "1 of 1 turns read" in facts
    assert "1. **Variant** `1`\n1. **Data** `2`" in facts


def test_a_conversation_is_one_session(serve: Serve) -> None:
    url = serve()
    page = say(say(open_page(), "first"), "second")
    [session] = httpx.get(f"{url}/sessions", timeout=60).json()["sessions"]
    assert (session["title"], session["turns"]) == ("first", 2)
    assert [text for _, text in shown(page.main) if text.startswith("you said")] == [
        "you said: first",
        "you said: second",
    ]
    assert "2 of 2 turns read" in "".join(text for _, text in answers(page)[1])


def test_the_guards_message_comes_first_and_stays(serve: Serve) -> None:
    serve()
    page = open_page()
    for message in ("I have chest pain", "thank you"):
        answer = answers(say(page, message))[0]
        assert answer[:2] == [
            ("error", "Call 112 now."),
            ("markdown", "you said: I have chest pain"),
        ]
        assert any("emergency (chest_pain)" in text for _, text in answer)


def test_the_guards_message_alone_when_the_model_is_not_asked(serve: Serve) -> None:
    serve()
    page = say(open_page(), "I see no way out")
    [answer] = answers(page)
    assert answer[0] == ("error", "Talk to someone now.")
    assert not any("you said" in text for _, text in answer)
    assert any("no model was asked" in text for _, text in answer)


def test_an_earlier_session_opens_with_its_guard_messages(serve: Serve) -> None:
    url = serve()
    chat = {"message": "chest pain since noon", "system": "Be brief."}
    first = httpx.post(f"{url}/chat", json=chat, timeout=60).json()
    second = {"message": "and now?", "session_id": first["session_id"]}
    httpx.post(f"{url}/chat", json=second, timeout=60)
    page = open_page()
    page.button(key=f"open_{first['session_id']}").click().run()
    assert not page.exception
    assert [text.value for text in page.text] == ["chest pain since noon", "and now?"]
    assert answers(page)[0][:2] == [
        ("error", "Call 112 now."),
        ("markdown", "you said: chest pain since noon"),
    ]
    assert page.text_area(key="system").value == "Be brief."
    say(page, "go on")
    assert httpx.get(f"{url}/sessions/{first['session_id']}", timeout=60).json()["turns"] == 3
    page.button(key="new_chat").click().run()
    assert not page.chat_message
    assert page.text_area(key="system").value == ""


def test_a_session_that_is_gone_leaves_the_page_as_it_was(serve: Serve) -> None:
    url = serve()
    page = say(open_page(), "hello")
    [session] = httpx.get(f"{url}/sessions", timeout=60).json()["sessions"]
    httpx.delete(f"{url}/sessions/{session['id']}", timeout=60)
    page.button(key=f"open_{session['id']}").click().run()
    assert not page.exception
    assert "there is no session" in page.toast[0].value
    assert [text.value for text in page.text] == ["hello"]


def test_more_sessions_are_shown_when_asked(serve: Serve) -> None:
    url = serve()
    for number in range(22):
        httpx.post(f"{url}/chat", json={"message": f"number {number}"}, timeout=60)
    page = open_page()

    def listed() -> int:
        return sum(bool(button.key and button.key.startswith("open_")) for button in page.button)

    assert listed() == 20
    page.button(key="more").click().run()
    assert listed() == 22


def test_the_controls_go_with_the_question(serve: Serve) -> None:
    engine = FakeEngine(["one two three four"])
    serve(engine)
    page = open_page()
    page.slider(key="temperature").set_value(0.0)
    page.slider(key="top_p").set_value(0.5)
    page.number_input(key="max_tokens").set_value(2)
    page.number_input(key="seed").set_value(7)
    page.text_area(key="system").set_value("Talk like a nurse.")
    say(page, "hello")
    [request] = engine.requests
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p) == (0.0, 0.5)
    assert (sampling.max_tokens, sampling.seed) == (2, 7)
    assert "system\nTalk like a nurse.<|im_end|>" in request.text
    assert any("Cut at the longest answer allowed" in text for _, text in answers(page)[0])


def test_api_down_gives_the_command_and_keeps_the_message(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("HOUSECALL_URL", f"http://127.0.0.1:{port}")
    page = open_page()
    assert "does not answer" in page.error[0].value
    assert page.code[0].value == f"housecall serve --port {port}"
    say(page, "is anyone there?")
    assert page.text[0].value == "is anyone there?"
    assert "was not sent" in answers(page)[0][0][1]
    serve()
    page.button(key="retry").click().run()
    assert not page.error
    page.button(key="again").click().run()
    assert answers(page)[0][0] == ("markdown", "you said: is anyone there?")
    assert len(answers(page)) == 1


def test_an_error_in_the_stream_keeps_both_texts(serve: Serve) -> None:
    engine = FakeEngine(fail_after=2, failure=EngineError("the engine died"))
    url = serve(engine)
    page = say(open_page(), "my long question")
    assert page.text[0].value == "my long question"
    assert answers(page)[0][:2] == [("markdown", "you said"), ("warning", "the engine died")]
    engine._fail_after = None
    page.button(key="again").click().run()
    assert answers(page)[0][0] == ("markdown", "you said: my long question")
    sessions = httpx.get(f"{url}/sessions", timeout=60).json()["sessions"]
    assert len(sessions) == 1, "asking again goes on in the session that the first try began"


def test_an_emergency_is_answered_while_the_model_is_down(serve: Serve) -> None:
    engine = FakeEngine()
    serve(engine)
    engine.available = False
    page = open_page()
    assert any("the model is loading" in text for _, text in shown(page.sidebar))
    say(page, "chest pain")
    assert answers(page)[0][0] == ("error", "Call 112 now.")


def test_a_key_is_sent_and_asked_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(api_keys=("secret",))
    page = open_page()
    assert any("send an API key" in text for _, text in shown(page.sidebar))
    monkeypatch.setenv("HOUSECALL_API_KEY", "secret")
    assert answers(say(open_page(), "hello"))[0][0] == ("markdown", "you said: hello")


def test_what_was_typed_is_not_markup(serve: Serve) -> None:
    serve(FakeEngine(["![x](http://example.com/pixel.png) costs $5 to $6"]))
    typed = "**bold** :red[x] ![x](http://example.com/a.png)"
    page = say(open_page(), typed)
    assert page.text[0].value == typed
    assert page.chat_message[1].markdown[0].value == (
        r"!\[x](http://example.com/pixel.png) costs \$5 to \$6"
    )
    title = next(b.label for b in page.button if b.key and b.key.startswith("open_"))
    assert r"\*\*bold\*\* \:red\[x\]" in title
