"""What goes to llama.cpp's server and what comes back, in Housecall's terms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from housecall.errors import ContextLengthExceeded, EngineError, EngineUnavailable
from housecall.types import Chunk, FinishReason, Sampling, TokenScore, Usage


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which JSON can bring in, becomes ``?``."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def completion_request(
    prompt: Sequence[int], sampling: Sampling, room: int, *, cache: bool = True
) -> dict[str, Any]:
    """The body for /completion; ``room`` is what the window leaves for the answer, in tokens."""
    body: dict[str, Any] = {
        "prompt": list(prompt),
        "stream": True,
        "return_tokens": True,
        "cache_prompt": cache,
        # Something must be written while a prompt is read: a failing write is how the engine
        # notices that the caller has gone.
        "return_progress": True,
        "n_predict": min(sampling.max_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        # The engine's seeds have 32 bits, and the highest one asks for a random seed.
        "seed": -1 if sampling.seed is None else sampling.seed % 0xFFFFFFFF,
        "stop": [text for text in sampling.stop if text],
    }
    if sampling.json_schema is not None:
        body["json_schema"] = compact(sampling.json_schema)
    if sampling.top_logprobs is not None:
        body["n_probs"] = max(1, sampling.top_logprobs)  # at 0 it would not tell the chosen one's
    return body


def compact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` with one spelling of white space (an extension of llguidance).

    Left free, small models spend their tokens on line breaks between two values.
    """
    spacing = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return {"x-guidance": spacing, **schema}


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The lines of a stream, which end at line feeds only.

    httpx also ends them at U+2028 and others, which the engine writes into its JSON as they are.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").removesuffix("\r")
    if rest:
        yield rest.decode("utf-8", "replace")


def parse_event(line: str, top: int = 0) -> Chunk | None:
    """The chunk of one line of the stream; None for lines without one.

    ``top`` is how many likely tokens are kept beside each, where the line has them.

    Raises what ``error_from`` makes of an error in the middle of the stream.
    """
    field, _, data = line.partition(": ")
    if field not in ("data", "error"):
        return None
    event = json.loads(data)
    if field == "error" or "error" in event:
        raise error_from(event)
    if "prompt_progress" in event:
        return None
    if not event["stop"]:
        scored = event.get("completion_probabilities", ())
        # A token without text ends the answer: it is no part of it.
        scores = tuple(_score(token, top) for token in scored if token["bytes"])
        return Chunk(event["content"], tuple(event["tokens"]), scores=scores)
    usage = Usage(
        prompt_tokens=event["tokens_evaluated"],
        completion_tokens=event["tokens_predicted"],
        cached_tokens=event["timings"]["cache_n"],
    )
    finish: FinishReason = "length" if event["stop_type"] == "limit" else "stop"
    return Chunk(event["content"], tuple(event["tokens"]), finish, usage)


def _score(token: Mapping[str, Any], top: int) -> TokenScore:
    likely = tuple(_score(other, 0) for other in token.get("top_logprobs", ())[:top])
    return TokenScore(token["token"], bytes(token["bytes"]), token["logprob"], likely)


def error_from(body: Mapping[str, Any]) -> ContextLengthExceeded | EngineError:
    """Housecall's error for one of the engine's."""
    error = body.get("error", body)
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(error["n_prompt_tokens"], error["n_ctx"])
    message = f"the engine refused the request: {error.get('message', error)}"
    return EngineUnavailable(message) if error.get("code") == 503 else EngineError(message)
