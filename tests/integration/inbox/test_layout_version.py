"""No process works on a record whose layout is newer than it understands."""

from __future__ import annotations

from inbox import layout
from inbox.store import PREFIX, Store

KEY = PREFIX + "layout"


def test_a_new_record_gets_the_version_of_its_layout(store: Store) -> None:
    layout.mark(store)
    assert layout.problem(store) == ""
    assert store.client.zscore(KEY, "version") == layout.LAYOUT


def test_the_version_of_an_older_record_is_raised_and_never_lowered(store: Store) -> None:
    store.client.zadd(KEY, {"version": 1})
    layout.mark(store)
    assert layout.problem(store) == ""
    assert store.client.zscore(KEY, "version") == layout.LAYOUT
    store.client.zadd(KEY, {"version": layout.LAYOUT + 1})
    layout.mark(store)
    assert f"has layout {layout.LAYOUT + 1}, which a newer version of Holdfast has written" in layout.problem(store)
    assert store.client.zscore(KEY, "version") == layout.LAYOUT + 1
