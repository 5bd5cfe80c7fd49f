"""The change between two answers of one process: differences of counters that may be missing or may have restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.times import Times, since

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Change", "pairs", "times_of"]


class Change:
    """One object of an answer, now and before. Without an object before, each difference counts from zero.

    A counter that is lower than before has restarted: its whole value is the difference.
    """

    __slots__ = ("before", "now", "seconds")

    def __init__(self, now: Mapping[str, Any] | None, before: Mapping[str, Any] | None, seconds: float) -> None:
        self.now: Mapping[str, Any] = now or {}
        self.before: Mapping[str, Any] = before or {}
        self.seconds = seconds

    def inner(self, key: str) -> Change:
        """Return the change of the object under `key`."""
        return Change(self.now.get(key), self.before.get(key), self.seconds)

    def amount(self, key: str) -> float:
        """Return the difference of a number; 0 if it is missing."""
        return _grown(self.now.get(key), self.before.get(key))

    def count(self, key: str) -> int:
        """Return the difference of a whole number; 0 if it is missing."""
        return int(self.amount(key))

    def rate(self, key: str) -> float:
        """Return the difference of a number in each second."""
        return self.share(self.amount(key))

    def share(self, amount: float) -> float:
        """Return an amount divided by the interval; 0 for an empty interval."""
        return amount / self.seconds if self.seconds > 0 else 0.0

    def counts(self, key: str) -> dict[str, int]:
        """Return the differences that are not 0 of the counters under `key`."""
        inner = self.inner(key)
        grown = {name: inner.count(name) for name in inner.now}
        return {name: count for name, count in grown.items() if count}

    def times(self, key: str) -> Times:
        """Return the durations of the interval."""
        now, before = times_of(self.now.get(key)), times_of(self.before.get(key))
        return since(now, before) if now.count >= before.count else now

    def gauge(self, key: str) -> float:
        """Return a number as it is now; 0 if it is missing."""
        return self.now.get(key) or 0

    def gauge_count(self, key: str) -> int:
        """Return a whole number as it is now; 0 if it is missing."""
        return int(self.gauge(key))


def _grown(now: float | None, before: float | None) -> float:
    if now is None:
        return 0
    return now if before is None or before > now else now - before


def times_of(answered: Mapping[str, Any] | None) -> Times:
    """Return the durations of a `times` object in an answer; empty ones if it is missing."""
    if not answered:
        return Times()
    buckets = tuple((int(index), int(count)) for index, count in answered.get("buckets") or ())
    return Times(answered.get("count") or 0, answered.get("total_s") or 0.0, answered.get("max_s") or 0.0, buckets)


def pairs(
    now: Sequence[Mapping[str, Any]] | None, before: Sequence[Mapping[str, Any]] | None, key: str, seconds: float
) -> Iterator[Change]:
    """Yield the change of each object of a list now, each paired with the object before that has the same `key`.

    Objects with equal keys are paired in their order. An object that has disappeared is left out.
    """
    former: dict[Any, list[Mapping[str, Any]]] = {}
    for each in before or ():
        former.setdefault(_key(each, key), []).append(each)
    for each in now or ():
        same = former.get(_key(each, key))
        yield Change(each, same.pop(0) if same else None, seconds)


def _key(each: Mapping[str, Any], key: str) -> Any:
    value = each.get(key)
    return tuple(sorted((name, str(part)) for name, part in value.items())) if isinstance(value, dict) else value
