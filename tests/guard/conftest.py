from __future__ import annotations

import pytest

from housecall.guard import MedicalGuard


@pytest.fixture(scope="session")
def guard() -> MedicalGuard:
    return MedicalGuard.load("US")
