"""The API as the commands ask it: /api/v1 with a key. What goes wrong is told in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests

from cli.errors import FAILURE, UNAVAILABLE, USAGE, CommandError

TIMEOUT_SECONDS = (5, 30)  # to connect, to answer
PAGE = 100  # rows asked for at once

Given = Mapping[str, Any]


class Api:
    """One address and one key to it. Every call raises Failed where the answer is no good one."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        self._session.trust_env = False  # or ~/.netrc would replace the key

    def get(self, *path: str, **query: Any) -> dict[str, Any]:
        """`path` in parts, each of which may hold whatever an id may."""
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, *path: str, body: Given | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._call("POST", path, json=body or {}, headers=headers)

    def rows(self, what: str, most: int, **query: Any) -> Iterator[dict[str, Any]]:
        """At most `most` rows of a list, page after page: a page of a search may hold few, and still go on."""
        cursor = None
        while most:
            page = self.get(what, **query, limit=min(most, PAGE), cursor=cursor)
            yield from page[what]
            most, cursor = most - len(page[what]), page["cursor"]
            if cursor is None:
                return

    def _call(self, verb: str, path: tuple[str, ...], **how: Any) -> dict[str, Any]:
        address = "/".join((self.url, "api/v1", *(quote(part, safe="") for part in path)))
        try:
            answer = self._session.request(verb, address, timeout=TIMEOUT_SECONDS, allow_redirects=False, **how)
        except requests.RequestException:
            raise CommandError(
                f"nobody answers at {self.url}: is the receiver running? (--url, HOLDFAST_URL)", UNAVAILABLE
            ) from None
        try:
            told = answer.json()
        except requests.JSONDecodeError:
            told = None
        if answer.ok and isinstance(told, dict):
            return told
        raise _failure(answer.status_code, told, self.url)


def _failure(status: int, told: Any, url: str) -> CommandError:
    if not isinstance(told, dict) or "error" not in told:
        return CommandError(
            f"what answers at {url} (status {status}) is no Holdfast API (--url, HOLDFAST_URL)", UNAVAILABLE
        )
    match status:
        case 401:
            return CommandError(f"{told['error']} (--key-file, HOLDFAST_API_KEY)", USAGE)
        case 400 | 413:
            return CommandError(told["error"], USAGE)
        case 503:
            return CommandError(told["error"], UNAVAILABLE)
    return CommandError(told["error"], FAILURE)
