"""The command that starts the page. All of Streamlit's settings are flags: no file is written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_APP = Path(__file__).with_name("app.py")
_SETTINGS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "theme.baseRadius": "0.6rem",
    "theme.headingFontSizes": '["1.9rem","1.5rem","1.1rem"]',
    "theme.light.primaryColor": "#0f766e",
    "theme.dark.primaryColor": "#2dd4bf",
}


# Without an address to show, Streamlit asks a service on the web for this machine's.
_SHOWN = "STREAMLIT_BROWSER_SERVER_ADDRESS"


def command(port: int) -> list[str]:
    """What to run; the API's address goes with it as HOUSECALL_URL in the environment."""
    flags = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    if _SHOWN not in os.environ:
        flags.append("--browser.serverAddress=127.0.0.1")
    return [sys.executable, "-m", "streamlit", "run", str(_APP), f"--server.port={port}", *flags]
