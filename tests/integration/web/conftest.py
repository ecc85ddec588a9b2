"""What an API's tests share: a receiver's settings and its database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from dev.stack.servers import Valkey
from settings import Settings, load
from tasks.db.engine import make_engine, make_sessions
from tests.support.signed_deliveries import API_KEY


@pytest.fixture
def settings(valkey: Valkey, database: str) -> Settings:
    return load({"REDIS_URL": valkey.url, "DATABASE_URL": database, "API_KEYS": API_KEY})


@pytest.fixture
def sessions(settings: Settings) -> Callable[[], Session]:
    return make_sessions(make_engine(settings.database_url))
