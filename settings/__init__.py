"""The settings: `load()` reads the environment into one frozen, validated Settings. Nothing else reads os.environ."""

from settings.api_keys import SCOPES, ApiKey
from settings.model import (
    MAX_PROCESS_KB,
    PERSONAL,
    SLICE_SECONDS,
    STRIPE_RESENDS_DAYS,
    Client,
    Settings,
    SettingsError,
    ignore_netrc,
    load,
    load_client,
    problems,
)

__all__ = [
    "MAX_PROCESS_KB",
    "PERSONAL",
    "SCOPES",
    "SLICE_SECONDS",
    "STRIPE_RESENDS_DAYS",
    "ApiKey",
    "Client",
    "Settings",
    "SettingsError",
    "ignore_netrc",
    "load",
    "load_client",
    "problems",
]
