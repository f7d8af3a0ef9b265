"""Vectors of texts, from the model that is served."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from housecall.engines.base import unit
from housecall.engines.llama_client import LlamaClient, started
from housecall.engines.llama_process import LlamaConfig, LlamaProcess

_PIECE = 512  # tokens that are read at once; a mean over 2,048 would take 1 GB to compute


class LlamaEmbedder:
    """Makes vectors in a child process of its own.

    In the child that answers, each vector would push a conversation out of its slot. The weights
    are mapped from the same file, so they are in memory once; the rest is about 300 MB for a small
    model. The child is started by the first text, and by the next one after it has died.
    """

    def __init__(self, config: LlamaConfig) -> None:
        self._config = replace(
            config, n_ctx=_PIECE, parallel=1, prompt_cache_mib=0, embeddings=True
        )
        self._process: LlamaProcess | None = None
        self._client: LlamaClient | None = None
        self._one_at_a_time = asyncio.Lock()

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """The vector of a text, of length 1.

        A long one is read in pieces of equal length: the mean of their vectors, made length 1.
        """
        size = math.ceil(len(ids) / math.ceil(len(ids) / _PIECE))
        async with self._one_at_a_time:
            client = await self._running()
            starts = range(0, len(ids), size)
            vectors = [await _vector(client, ids[start : start + size]) for start in starts]
        return unit([sum(values) for values in zip(*vectors, strict=True)])

    async def close(self) -> None:
        """End the child, if there is one."""
        self._client = None
        process, self._process = self._process, None
        if process:
            await process.stop()

    async def _running(self) -> LlamaClient:
        if self._client is None or self._process is None or not self._process.alive:
            await self.close()
            self._process = LlamaProcess(self._config)
            self._client = await started(self._process)
        return self._client


async def _vector(client: LlamaClient, ids: Sequence[int]) -> Sequence[float]:
    answer = await client.request("POST", "/v1/embeddings", {"input": list(ids)})
    vector: Sequence[float] = answer["data"][0]["embedding"]
    return vector
