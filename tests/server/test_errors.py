"""Every refusal has the one shape, says what is wrong, and gives nothing of the request away."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from housecall import errors
from housecall.engines.fake import FakeEngine
from housecall.server.errors import describe
from serving import client_for

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert {"message", "type", "code", "param", "request_id"} <= set(error)
    assert error["request_id"] == response.headers["x-request-id"]
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", ""),
        ("prompt", " \n"),
        ("prompt", 5),
        ("system", 5),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", float("nan")),
        ("repeat_penalty", 0),
        ("seed", -1),
        ("seed", 2**32 - 1),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("stream", "yes"),
        ("json_schema", "x"),
        ("temprature", 1),
    ],
)
async def test_a_wrong_value_is_named(client: httpx.AsyncClient, field: str, value: Any) -> None:
    content = json.dumps({"prompt": "Hello", field: value})
    response = await client.post("/generate", content=content, headers=JSON)
    assert response.status_code == 422
    error = error_of(response)
    assert error["param"].split(".")[0] == field
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"null", b"{" * 5000, b'{"prompt": "a"} x'],
)
@pytest.mark.parametrize(("path", "status"), [("/generate", 422), ("/v1/chat/completions", 400)])
async def test_a_body_that_is_no_request(
    client: httpx.AsyncClient, content: bytes, path: str, status: int
) -> None:
    response = await client.post(path, content=content, headers=JSON)
    assert response.status_code in (status, 400)
    error_of(response)


async def test_half_a_surrogate_pair_is_no_text(client: httpx.AsyncClient) -> None:
    for field in ("prompt", "system", "stop", "model"):
        body = json.dumps({"prompt": "Hello", field: "\ud83d"})
        response = await client.post("/generate", content=body, headers=JSON)
        assert (response.status_code, error_of(response)["param"]) == (422, field)
    body = '{"message": "Hello", "session_id": "\\ud83d"}'
    assert (await client.post("/chat", content=body, headers=JSON)).status_code == 422
    unknown = await client.post("/generate", content='{"\\ud83d": 1}', headers=JSON)
    assert unknown.status_code == 422


async def test_a_page_elsewhere_can_not_post_without_asking(client: httpx.AsyncClient) -> None:
    """Browsers send text/plain across origins without a preflight."""
    response = await client.post(
        "/generate", content='{"prompt": "Hi"}', headers={"content-type": "text/plain"}
    )
    assert response.status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/v1/nope", 404, "not_found"),
        ("GET", "/generate", 405, "method_not_allowed"),
        ("PUT", "/sessions/x", 405, "method_not_allowed"),
        ("GET", "/sessions?limit=0", 422, "invalid_value"),
        ("GET", "/sessions?limit=201", 422, "invalid_value"),
        ("GET", "/sessions?before=nope", 404, "not_found"),
    ],
)
async def test_paths_and_methods(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    if status == 405:
        assert response.headers["allow"]


async def test_a_crash_is_a_500_that_says_nothing(client_of: Any) -> None:
    def crash(prompt: str) -> str:
        raise RuntimeError(f"secret words: {prompt}")

    client = await client_of(FakeEngine(crash))
    response = await client.post("/generate", json={"prompt": "Hello"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert error_of(response)["code"] == "internal_error"
    stream = await client.post("/generate", json={"prompt": "Hello", "stream": True})
    assert "secret" not in stream.text


async def test_a_template_that_refuses_is_the_requests_fault(app_of: Any) -> None:
    engine = FakeEngine()
    strict = "{{ raise_exception('a system message is not supported') }}"
    engine._info = engine.info.__class__(
        **{name: getattr(engine.info, name) for name in engine.info.__slots__}
        | {"chat_template": strict}
    )
    app = app_of(engine)
    async with app.router.lifespan_context(app), client_for(app) as client:
        await client.get("/health")
        response = await client.post("/generate", json={"prompt": "Hello"})
    assert response.status_code == 400
    assert "a system message is not supported" in error_of(response)["message"]


def test_every_error_of_ours_has_a_status() -> None:
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.EngineError):
            body = describe(error("words"), "req_1")["error"]
            assert body["code"] != "internal_error", name


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
async def test_a_body_that_is_not_utf_8_is_told_so(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(
        path, content=b'\xff\xfe{"message": "Hi"}', headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_json")
    assert error["message"] == "the body can't be read: send JSON in UTF-8"
