"""The moment by which an answer must be there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from housecall.errors import EngineTimeout

_Result = TypeVar("_Result")


class Deadline:
    """Ends ``seconds`` after it was made."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds

    async def keep(self, work: Awaitable[_Result]) -> _Result:
        """The result of ``work``, if it comes in time. Raises EngineTimeout."""
        try:
            async with asyncio.timeout_at(self._end):
                return await work
        except TimeoutError:
            raise EngineTimeout(
                f"the answer was not ready within {self._seconds:g} s: ask for fewer max_tokens, "
                "or serve with a larger HOUSECALL_REQUEST_TIMEOUT"
            ) from None
