"""What goes to another OpenAI-compatible server and what comes back, in Housecall's terms.

Its "tokens" are runs of up to three characters, packed into numbers, and two control tokens: so a
prompt can be turned back into messages, with nothing in a content that could end it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from housecall.types import Sampling, TokenScore, Usage

START, END = "<|start|>", "<|end|>"
TEMPLATE = (
    "{% for message in messages %}"
    f"{START}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{END}"
    "{% endfor %}"
)
CONTROL = (START, END)
CHARACTERS = 3  # in one token
_BITS = 21  # of a character
_MORE_THAN_ANY_TEXT = 1 << (CHARACTERS * _BITS)


def request_for(
    model: str, prompt: Sequence[int], sampling: Sampling, room: int
) -> tuple[str, dict[str, Any]]:
    """Where a prompt is sent and the body; a text without a template is completed as it is."""
    chat = control(START) in prompt
    body: dict[str, Any] = {
        "model": model,
        **({"messages": messages_of(prompt)} if chat else {"prompt": text_of(prompt)}),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": min(sampling.max_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Not OpenAI's own, but known to vLLM and llama-server.
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
    }
    if sampling.repeat_penalty != 1.0:
        body |= dict.fromkeys(("repetition_penalty", "repeat_penalty"), sampling.repeat_penalty)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": dict(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    top = sampling.top_logprobs
    if top is not None:
        body |= {"logprobs": True, "top_logprobs": top} if chat else {"logprobs": top}
    return ("/v1/chat/completions" if chat else "/v1/completions"), body


def messages_of(prompt: Sequence[int]) -> list[dict[str, str]]:
    """The conversation that the template and ``tokenize`` made a prompt of."""
    texts: list[list[str]] = []
    for token in prompt:
        if token == control(START):
            texts.append([])
        elif token != control(END):
            texts[-1].append(unpack(token))
    turns = ("".join(pieces).partition("\n") for pieces in texts)
    return [{"role": role, "content": content} for role, _, content in turns]


def text_of(prompt: Sequence[int]) -> str:
    """The text of tokens that are no control tokens."""
    return "".join(map(unpack, prompt))


def control(text: str) -> int:
    """The token of a control text."""
    return _MORE_THAN_ANY_TEXT + CONTROL.index(text)


def pack(text: str) -> int:
    """Up to three characters as one number, above 0."""
    number = 0
    for character in text:
        number = number << _BITS | ord(character) + 1
    return number


def unpack(number: int) -> str:
    """The characters of a number that ``pack`` made."""
    characters = []
    while number:
        characters.append(chr((number & (1 << _BITS) - 1) - 1))
        number >>= _BITS
    return "".join(reversed(characters))


def window_of(model: Mapping[str, Any]) -> int | None:
    """The window as vLLM or llama-server tell it, if they do."""
    meta = model.get("meta") or {}
    found = model.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
    return int(found) if found else None


def usage_of(body: Mapping[str, Any] | None) -> Usage | None:
    """The token counts of an event, if it has them."""
    if not body:
        return None
    details = body.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=body["prompt_tokens"],
        completion_tokens=body["completion_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
    )


def message_of(body: Mapping[str, Any]) -> str:
    """What an error says, in one line."""
    error = body.get("error", body)
    message = error.get("message", "") if isinstance(error, dict) else error
    return " ".join(str(message or "").split())


def scores_of(choice: Mapping[str, Any]) -> tuple[TokenScore, ...]:
    """The log-probabilities of a choice, of a chat's or of a completion's form."""
    found = choice.get("logprobs") or {}
    if found.get("tokens"):
        tops = found.get("top_logprobs") or [None] * len(found["tokens"])
        rows = zip(found["tokens"], found["token_logprobs"], tops, strict=True)
        return tuple(
            TokenScore(
                text,
                text.encode(),
                logprob,
                tuple(
                    TokenScore(other, other.encode(), value) for other, value in (top or {}).items()
                ),
            )
            for text, logprob, top in rows
        )
    return tuple(map(_score, found.get("content") or ()))


def _score(token: Mapping[str, Any]) -> TokenScore:
    data = token.get("bytes")
    return TokenScore(
        token["token"],
        token["token"].encode("utf-8", "replace") if data is None else bytes(data),
        token["logprob"],
        tuple(map(_score, token.get("top_logprobs") or ())),
    )
