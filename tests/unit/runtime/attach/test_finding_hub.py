"""The findings that monitors are told of, whenever they come."""

import os
from typing import Any

import pytest

from penstock.runtime.attach.events import FindingHub


class Keeps(list[Any]):
    """A list that is told of one more finding while it takes one, as by a garbage collection."""

    def __init__(self, hub: FindingHub) -> None:
        super().__init__()
        self.hub, self.is_first = hub, True

    def append(self, item: Any) -> None:
        if self.is_first:
            self.is_first = False
            self.hub.add("found meanwhile")  # type: ignore[arg-type]
        super().append(item)


@pytest.mark.timeout(60)
def test_a_finding_of_a_collection_comes_while_another_is_kept() -> None:
    hub: Any = FindingHub()
    hub._kept = Keeps(hub)
    hub.add("first")
    found, mark = hub.since(0)
    assert (sorted(found), mark) == (["first", "found meanwhile"], 2)
    assert hub.since(mark) == ([], 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_lock_of_its_own() -> None:
    hub = FindingHub()
    former = hub._lock
    hub.forked()
    assert hub._lock is not former
    assert hub.since(0) == ([], 0)
