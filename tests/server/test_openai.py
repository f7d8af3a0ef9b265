"""The OpenAI endpoints, through OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from housecall.engines.fake import FakeEngine
from housecall.errors import EngineError
from housecall.server.openai_wire import IGNORED
from serving import MODEL


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_a_conversation_is_answered(openai_of: Any) -> None:
    engine = FakeEngine(["Since when?"])
    client = openai_of(engine)
    parts = [{"type": "text", "text": "I "}, {"type": "text", "text": "cough."}]
    completion = client.chat.completions.create(
        model="demo",
        messages=[
            {"role": "developer", "content": "Be brief."},
            *user("Hello"),
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": parts},
        ],
    )
    choice = completion.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Since when?", "stop")
    assert completion.model == "demo"
    assert completion.usage.completion_tokens == 4
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 4
    assert completion.housecall["model"]["sha256"] == MODEL.sha256
    assert completion.housecall["guard"]["level"] == "none"
    assert engine.requests[0].text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nI cough.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("with_usage", [True, False])
def test_a_stream_adds_up(openai_of: Any, with_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    stream = openai_of().chat.completions.create(
        model="demo", messages=user("Hello there"), stream=True, **options
    )
    chunks = list(stream)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == "assistant"
    with_choices = [chunk for chunk in chunks if chunk.choices]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in with_choices)
    assert text == "you said: Hello there"
    assert with_choices[-1].choices[0].finish_reason == "stop"
    assert with_choices[-1].housecall["model"]["name"] == "demo"
    if with_usage:
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == 6
    else:
        assert chunks == with_choices
        assert all(chunk.usage is None for chunk in chunks)


def test_the_guards_message_is_the_first_content(openai_of: Any) -> None:
    client = openai_of()
    whole = client.chat.completions.create(model="demo", messages=user("chest pain"))
    assert whole.choices[0].message.content == "Call 112 now.\n\nyou said: chest pain"
    stream = client.chat.completions.create(model="demo", messages=user("chest pain"), stream=True)
    deltas = [chunk.choices[0].delta.content for chunk in stream]
    assert deltas[:3] == ["", "Call 112 now.", "\n\nyou"]
    assert "".join(delta or "" for delta in deltas) == whole.choices[0].message.content


def test_an_emergency_is_shown_with_the_engine_down(openai_of: Any) -> None:
    engine = FakeEngine()
    client = openai_of(engine)
    engine.available = False
    completion = client.chat.completions.create(model="demo", messages=user("chest pain"))
    choice = completion.choices[0]
    # Not "content_filter": clients hide or refuse what ends so.
    assert (choice.message.content, choice.finish_reason) == ("Call 112 now.", "stop")
    assert completion.housecall["finish_reason"] == "guard"
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="demo", messages=user("a cold"))
    assert caught.value.status_code == 503
    assert caught.value.code == "engine_unavailable"


def test_the_fields_with_an_effect_reach_the_engine(openai_of: Any) -> None:
    engine = FakeEngine()
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    openai_of(engine).chat.completions.create(
        model="demo",
        messages=user("Hello"),
        max_completion_tokens=9,
        max_tokens=99,
        temperature=0,
        top_p=0.5,
        seed=-1,
        stop="END",
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        extra_body={"top_k": 1, "min_p": 0.5, "repeat_penalty": 1.5},
    )
    sampling = engine.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0, 0.5)
    assert (sampling.seed, sampling.stop) == (2**32 - 2, ("END",))
    assert (sampling.json_schema, sampling.repeat_penalty) == (schema, 1.5)
    assert (sampling.top_k, sampling.min_p) == (1, 0.5)


def test_the_answer_may_fill_the_window_by_default(openai_of: Any) -> None:
    engine = FakeEngine(["word " * 500])
    completion = openai_of(engine).chat.completions.create(model="demo", messages=user("Go on"))
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens > 256  # the default elsewhere


def test_log_probabilities_tell_how_likely_each_token_was(openai_of: Any) -> None:
    client = openai_of(FakeEngine(["Since when?"]))
    asked = {"model": "demo", "messages": user("I cough."), "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked).choices[0].logprobs.content
    assert [token.token for token in whole] == ["Since", " when", "?"]
    assert [token.bytes for token in whole] == [list(b"Since"), list(b" when"), list(b"?")]
    assert all(token.logprob == token.top_logprobs[0].logprob < 0 for token in whole)
    assert {len(token.top_logprobs) for token in whole} == {2}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token for one in told for token in one.content] == whole
    none = client.chat.completions.create(**{**asked, "logprobs": False, "top_logprobs": None})
    assert none.choices[0].logprobs is None


@pytest.mark.parametrize("policy", ["cut", "replace"])
def test_log_probabilities_do_not_show_what_the_guard_takes_out(
    openai_of: Any, policy: str
) -> None:
    client = openai_of(guard_output=policy)
    with pytest.raises(openai.BadRequestError, match=f"GUARD_OUTPUT={policy}") as caught:
        client.chat.completions.create(model="demo", messages=user("Hi"), logprobs=True)
    assert caught.value.param == "logprobs"


def test_fields_without_effect_are_ignored(openai_of: Any) -> None:
    message = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}
    completion = openai_of().chat.completions.create(
        model="demo",
        messages=[*user("Hello"), message, {"role": "user", "content": "And?", "name": "Ann"}],
        n=1,
        logprobs=False,
        extra_body=dict.fromkeys(IGNORED, "anything") | {"logit_bias": None, "tools": None},
    )
    assert completion.choices[0].message.content == "you said: And?"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"n": 2}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": user([{"type": "image_url"}])}, "messages.0.content.0.type"),
    ],
)
def test_what_is_not_served_is_refused(openai_of: Any, change: Any, param: str) -> None:
    client = openai_of()
    body = {"model": "demo", "messages": user("Hello"), **change}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.code == "invalid_value"
    assert param in caught.value.message
    if "content" not in param:  # a union has several first errors
        assert caught.value.param == param


def test_models_are_listed(openai_of: Any) -> None:
    client = openai_of()
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "housecall"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=user("Hello"))
    assert caught.value.code == "model_not_found"


def test_a_key_is_asked_for(openai_of: Any) -> None:
    assert openai_of(key="two", api_keys=("one", "two")).models.list()
    with pytest.raises(openai.AuthenticationError) as caught:
        openai_of(key="three", api_keys=("one", "two")).models.list()
    assert caught.value.code == "invalid_api_key"


def test_a_long_prompt_is_openais_error(openai_of: Any) -> None:
    client = openai_of(FakeEngine(n_ctx=64))
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=user("word " * 100))
    assert caught.value.code == "context_length_exceeded"


def test_a_stream_that_breaks_is_an_error_in_the_client(openai_of: Any) -> None:
    client = openai_of(FakeEngine(fail_after=1, failure=EngineError("it died")))
    stream = client.chat.completions.create(model="demo", messages=user("Hello"), stream=True)
    with pytest.raises(openai.APIError, match="it died"):
        list(stream)


def test_every_stream_ends_with_done(openai_of: Any) -> None:
    for engine in (FakeEngine(), FakeEngine(fail_after=1)):
        address = str(openai_of(engine).base_url)
        body = {"model": "demo", "messages": user("Hello"), "stream": True}
        response = httpx.post(f"{address}chat/completions", json=body, timeout=60)
        *chunks, done, end = response.text.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        assert all(json.loads(chunk.removeprefix("data: ")) for chunk in chunks)
