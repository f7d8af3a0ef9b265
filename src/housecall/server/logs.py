"""Log lines: one JSON object each, or plain text; never the text of messages unless asked for."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

REQUESTS = logging.getLogger("housecall.requests")


def configure(log_format: Literal["json", "console"]) -> None:
    """Send the log of this process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def log_request(fields: dict[str, Any]) -> None:
    """The one line of a request."""
    message = f"{fields['method']} {fields['route']} {fields['status']}"
    REQUESTS.info("%s", message, extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line; control characters come out escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return json.dumps(_facts(record))


class ConsoleFormatter(logging.Formatter):
    """``time LEVEL message key=value``; strings are JSON, so no text can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        facts = _facts(record)
        time, level, message = facts.pop("time"), facts.pop("level"), facts.pop("message")
        rest = " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items())
        shown = json.dumps(message)[1:-1]
        return f"{time} {level} {shown} {rest}".rstrip()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    facts: dict[str, Any] = {
        "time": time,
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        **getattr(record, "fields", {}),
    }
    if record.exc_info and record.exc_info[0]:
        # Not the exception's words: they may quote a message.
        frames = traceback.extract_tb(record.exc_info[2])
        facts["exception"] = record.exc_info[0].__name__
        facts["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return facts
