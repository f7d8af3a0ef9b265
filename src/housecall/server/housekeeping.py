"""What must be done every few seconds: leases renewed, deleted and old conversations erased."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from anyio import to_thread

from housecall.errors import HousecallError
from housecall.sessions import SessionStore
from housecall.settings import Settings

_log = logging.getLogger(__name__)

_SECONDS = 5.0


class Housekeeping:
    """Keeps a store in order while a server runs."""

    def __init__(self, store: SessionStore, settings: Settings) -> None:
        self._store = store
        self._undo = timedelta(seconds=settings.undo_seconds)
        days = settings.retention_days
        self._retention = None if days is None else timedelta(days=days)

    async def run(self) -> None:
        """Go on until cancelled; a database that fails now may be back the next time."""
        while True:
            try:
                await to_thread.run_sync(self._store.renew)
                await self.erase()
            except HousecallError as error:
                _log.warning("housekeeping: %s", error)
            await asyncio.sleep(_SECONDS)

    async def erase(self) -> None:
        """Erase what was deleted, or not used, for long enough."""
        erased = await to_thread.run_sync(self._store.erase, self._undo, self._retention)
        if erased:
            _log.info("erased %d conversations", erased)
