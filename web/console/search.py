"""The search form shared by the pages for events and dead letters."""

from __future__ import annotations

from flask import request

from web.queries.filters import SEARCH_FIELDS


def search_params() -> dict[str, str]:
    """The filters in the query string, to fill in the form again and to repeat them in the link to the next page."""
    return {name: value for name, value in request.args.items() if value and name in SEARCH_FIELDS}
