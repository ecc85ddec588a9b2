"""The settings: `load()` reads the environment into one frozen, validated Settings. Nothing else reads os.environ."""

from settings.model import PERSONAL, STRIPE_RESENDS_DAYS, Client, Settings, SettingsError, load, load_client, problems

__all__ = [
    "PERSONAL",
    "STRIPE_RESENDS_DAYS",
    "Client",
    "Settings",
    "SettingsError",
    "load",
    "load_client",
    "problems",
]
