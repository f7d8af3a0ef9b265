"""Stop strings in a stream: what must not be shown is held back until it is certain."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes a stream of text on up to the first stop string, which may span pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What may be shown now; nothing more once ``found``."""
        if self.found:
            return ""
        self._held += text
        cuts = [cut for cut in map(self._held.find, self._stop) if cut >= 0]
        if cuts:
            self.found = True
            shown, self._held = self._held[: min(cuts)], ""
            return shown
        keep = self._possible_start()
        shown, self._held = self._held[: len(self._held) - keep], self._held[-keep:] * bool(keep)
        return shown

    def flush(self) -> str:
        """The text that was held back and turned out not to be a stop string."""
        shown, self._held = self._held, ""
        return shown

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
