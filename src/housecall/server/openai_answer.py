"""Answers in OpenAI's terms: what chats and completions have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

from fastapi import Request

from housecall.events import Answer, AnswerRequest, Done, Event
from housecall.server.errors import ApiError
from housecall.server.streams import error_data, frame, note
from housecall.server.wire import GenerateResponse
from housecall.types import TokenScore

_DONE = "data: [DONE]\n\n"
_LEAST = -9999.0  # what OpenAI writes for a probability of 0


async def frames(
    request: Request,
    asked: AnswerRequest,
    first: Event,
    rest: AsyncGenerator[Event, None],
    chunks_of: Callable[[Event], Iterable[dict[str, Any]]],
) -> AsyncGenerator[str, None]:
    """The server-sent events of a stream; ``[DONE]`` is the last one, also after an error.

    What is known at once is sent at once: each sending costs more than making the events.
    """
    try:
        yield _frames(chunks_of(first))
        async for event in rest:
            if isinstance(event, Done):
                note(request, asked, event.answer)
                yield _frames(chunks_of(event)) + _DONE
                return
            yield _frames(chunks_of(event))
    except Exception as error:
        yield frame(error_data(request, error)) + _DONE


def _frames(chunks: Iterable[dict[str, Any]]) -> str:
    return "".join(map(frame, chunks))


def check_scores(request: Request, wanted: int | None) -> None:
    """Refuse log-probabilities where the guard takes sentences out: they would show them."""
    policy = request.app.state.settings.guard_output
    if wanted is not None and policy != "mark":
        raise ApiError(
            400,
            f"logprobs would show what HOUSECALL_GUARD_OUTPUT={policy} takes out: leave them out",
            code="invalid_value",
            param="logprobs",
        )


def finish_reason(answer: Answer) -> str:
    """OpenAI's word: clients hide or refuse what ends with its ``content_filter``.

    An emergency message must be shown, so ``guard`` becomes ``stop``; ``housecall`` tells it.
    """
    return "length" if answer.finish_reason == "length" else "stop"


def usage(answer: Answer) -> dict[str, Any]:
    """Token counts."""
    counts = answer.usage
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
    }


def extension(answer: Answer) -> dict[str, Any]:
    """What OpenAI's format has no place for."""
    body = GenerateResponse.of(answer)
    return body.model_dump(include={"request_id", "finish_reason", "timings", "guard", "model"})


def chat_logprobs(scores: Sequence[TokenScore]) -> dict[str, Any]:
    """``logprobs`` of a chat's choice."""
    content = [_score(score) | {"top_logprobs": [*map(_score, score.top)]} for score in scores]
    return {"content": content, "refusal": None}


def completion_logprobs(scores: Sequence[TokenScore], offset: int) -> dict[str, Any]:
    """``logprobs`` of a completion's choice; its text starts at the character ``offset``."""
    offsets = []
    for score in scores:
        offsets.append(offset)
        offset += len(score.text)
    return {
        "tokens": [score.text for score in scores],
        "token_logprobs": [max(score.logprob, _LEAST) for score in scores],
        "top_logprobs": [{o.text: max(o.logprob, _LEAST) for o in s.top} for s in scores],
        "text_offset": offsets,
    }


def _score(score: TokenScore) -> dict[str, Any]:
    return {
        "token": score.text,
        "logprob": max(score.logprob, _LEAST),
        "bytes": list(score.data),
    }
