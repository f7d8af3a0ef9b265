"""The command that starts the page. All of Streamlit's settings are flags: no file is written."""

from __future__ import annotations

import sys
from pathlib import Path

_APP = Path(__file__).with_name("app.py")
_SETTINGS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    # Without it Streamlit may ask a service on the web for this machine's address.
    "browser.serverAddress": "127.0.0.1",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "theme.baseRadius": "0.6rem",
    "theme.headingFontSizes": '["1.9rem","1.5rem","1.1rem"]',
    "theme.light.primaryColor": "#0f766e",
    "theme.dark.primaryColor": "#2dd4bf",
}


def command(port: int) -> list[str]:
    """What to run; the API's address goes with it as HOUSECALL_URL in the environment."""
    flags = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    return [sys.executable, "-m", "streamlit", "run", str(_APP), f"--server.port={port}", *flags]
