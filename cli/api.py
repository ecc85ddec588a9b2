"""Client of the API at /api/v1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests

from cli.errors import FAILURE, UNAVAILABLE, USAGE, CommandError

TIMEOUT_SECONDS = (5, 30)  # connect, response
PAGE_ROWS = 100


class Api:
    """The API at one URL, with one key. Every call raises CommandError unless it succeeds."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        self._session.trust_env = False  # otherwise ~/.netrc would replace the key

    def get(self, *path: str, **query: Any) -> dict[str, Any]:
        """`path` in segments, which may contain any character. Query parameters that are None are left out."""
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(
        self, *path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return self._call("POST", path, json=body or {}, headers=headers)

    def rows(self, collection: str, max_rows: int, **query: Any) -> Iterator[dict[str, Any]]:
        """Up to `max_rows` rows of a list, page by page. Only a missing cursor ends a list: a search may return a
        short or empty page and still have more."""
        cursor = None
        while max_rows:
            page = self.get(collection, **query, limit=min(max_rows, PAGE_ROWS), cursor=cursor)
            yield from page[collection]
            max_rows, cursor = max_rows - len(page[collection]), page["cursor"]
            if cursor is None:
                return

    def _call(self, method: str, path: tuple[str, ...], **options: Any) -> dict[str, Any]:
        url = "/".join((self.url, "api/v1", *(quote(segment, safe="") for segment in path)))
        try:
            response = self._session.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **options)
        except requests.RequestException:
            message = f"no answer from {self.url}: is the receiver running? (--url, HOLDFAST_URL)"
            raise CommandError(message, UNAVAILABLE) from None
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        if response.ok and isinstance(answer, dict):
            return answer
        raise _error(response.status_code, answer, self.url)


def _error(status: int, answer: Any, url: str) -> CommandError:
    if not isinstance(answer, dict) or "error" not in answer:
        message = f"{url} answered with status {status}, but is not a Holdfast API (--url, HOLDFAST_URL)"
        return CommandError(message, UNAVAILABLE)
    match status:
        case 401:
            return CommandError(f"{answer['error']} (--key-file, HOLDFAST_API_KEY)", USAGE)
        case 400 | 413:
            return CommandError(answer["error"], USAGE)
        case 503:
            return CommandError(answer["error"], UNAVAILABLE)
    return CommandError(answer["error"], FAILURE)
