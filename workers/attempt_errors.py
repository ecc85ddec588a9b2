"""What the error of an attempt means, and its text for people."""

from __future__ import annotations

import traceback
from pathlib import Path

from sqlalchemy.exc import OperationalError

from inbox.errors import HoldfastError, StoreUnavailable

ROOT = Path(__file__).parent.parent


def is_outage(error: BaseException) -> bool:
    """True if the record or the database is not available, which is not the job's failure.

    An error in a statement is: it may be what broke the connection. So only connecting and committing remain.
    """
    return isinstance(error, StoreUnavailable) or (isinstance(error, OperationalError) and error.statement is None)


def describe(error: BaseException) -> str:
    """An error's text without personal data. Texts of foreign errors may contain it, so only their place is given."""
    return str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__} at {where(error)}"


def where(error: BaseException) -> str:
    """The innermost line of our own code in the traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ROOT)]
    own = [f for f in frames if "site-packages" not in f.filename]
    if not own:
        return "an unknown place"
    return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}"
