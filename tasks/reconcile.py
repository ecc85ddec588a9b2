"""`python -m tasks.reconcile`: fetches events from Stripe that were not delivered."""

from inbox.errors import HoldfastError
from settings import SettingsError
from tasks.billing.reconcile import main

if __name__ == "__main__":
    try:
        main()
    except (SettingsError, HoldfastError) as error:
        raise SystemExit(f"holdfast: {error}") from None
