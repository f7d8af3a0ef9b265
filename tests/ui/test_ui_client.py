from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from housecall.engines.fake import FakeEngine
from housecall.ui.client import Api, ApiDown, ApiError, Event, read_events
from housecall.ui.conversation import Conversation, Turn


@contextmanager
def responding(body: bytes, length: int | None = None) -> Iterator[str]:
    """An HTTP server that gives every request the same body, of the length it claims or not."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_events_of_a_stream() -> None:
    stream = (
        ": a comment\n\n"
        'event: token\ndata: {"text": "a\\u2028b"}\n\n'
        'event:done\nid: 7\ndata: {"text":\ndata: "c"}\n\n'
        "event: nothing\n\n"
        'event: token\ndata: {"text": "cut off"}'
    )
    assert list(read_events(stream.split("\n"))) == [
        Event("token", {"text": "a\u2028b"}),
        Event("done", {"text": "c"}),
    ]


def test_nothing_there_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Api(f"http://127.0.0.1:{taken.getsockname()[1]}") as api:
            with pytest.raises(ApiDown, match="does not answer"):
                api.not_ready()
            with pytest.raises(ApiDown):
                next(api.chat({"message": "hello"}))


def test_something_else_there_is_said() -> None:
    with (
        responding(b"<h1>Hello</h1>") as url,
        Api(url) as api,
        pytest.raises(ApiError, match="is not the API of Housecall"),
    ):
        api.models()


def test_a_refusal_has_the_words_of_the_api(serve: Callable[..., str]) -> None:
    with Api(serve()) as api, pytest.raises(ApiError, match="message: must not be blank") as caught:
        list(api.chat({"message": " "}))
    assert caught.value.status == 422


def test_no_proxy_of_the_environment(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Api(url) as api:
        assert api.not_ready() == ""


def test_a_stream_that_breaks_keeps_what_came() -> None:
    turn, body = Turn("hello"), b'event: token\ndata: {"text": "Drink"}\n\n'
    for length in (None, 1000):
        with responding(body, length) as url, Api(url) as api:
            conversation = Conversation("ses_1", turns=[turn])
            list(conversation.ask(api, turn, {}))
            assert (turn.status, turn.text) == ("error", "Drink")
            assert "broke" in turn.error
            conversation.again(turn)
            [turn] = conversation.turns


def test_stopping_cancels_the_answer_and_the_next_question_goes_on(
    serve: Callable[..., str],
) -> None:
    engine = FakeEngine(["one two three four five"], delay=0.05)
    with Api(serve(engine)) as api:
        list(api.chat({"message": "hello"}))  # an older session with the same title
        conversation = Conversation(turns=[Turn("hello")])
        with closing(conversation.ask(api, conversation.turns[0], {})) as changes:
            next(changes)
        conversation.settle_interrupted()
        assert conversation.turns[0].status == "cancelled"
        assert conversation.turns[0].text == "one"
        while len(api.session(api.sessions().sessions[0]["id"])["messages"]) < 2:
            time.sleep(0.01)  # the API has yet to notice, and to save what came
        conversation.turns.append(Turn("go on"))
        list(conversation.ask(api, conversation.turns[1], {}))
        assert conversation.turns[1].status == "complete"
        newest, older = api.sessions().sessions
        assert (newest["id"], newest["turns"]) == (conversation.session_id, 2)
        assert older["turns"] == 1
