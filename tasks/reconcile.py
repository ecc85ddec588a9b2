"""`python -m tasks.reconcile`: fetches the events from Stripe that never arrived."""

from inbox.errors import HoldfastError
from settings import SettingsError
from tasks.billing.reconcile import main

if __name__ == "__main__":
    try:
        main()
    except (SettingsError, HoldfastError) as error:
        raise SystemExit(f"holdfast: {error}") from None
