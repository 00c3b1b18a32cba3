from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from lbkit.core.records import RecordError, record_from_mapping, record_to_mapping


@dataclass(frozen=True)
class Inner:
    count: int
    kind: Literal["a", "b"]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    pair: tuple[float, float]
    many: tuple[Inner, ...] = ()
    maybe: int | None = None

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("name is bad")


GOOD = {"name": "x", "inner": {"count": 1, "kind": "a"}, "pair": [1, 2.5], "many": [{"count": 2, "kind": "b"}]}


def test_round_trip_keeps_everything() -> None:
    record = record_from_mapping(Outer, GOOD)
    assert record == Outer("x", Inner(1, "a"), (1.0, 2.5), (Inner(2, "b"),), None)
    assert record_from_mapping(Outer, record_to_mapping(record)) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "unknown field extra"),
        ({"inner": {"count": 1}}, "missing field inner.kind"),
        ({"inner": {"count": 1, "kind": "a", "more": 0}}, "unknown field inner.more"),
        ({"inner": {"count": 1, "kind": "c"}}, "inner.kind should be one of a, b, got 'c'"),
        ({"inner": {"count": True, "kind": "a"}}, "inner.count should be int, got True"),
        ({"inner": {"count": "1", "kind": "a"}}, "inner.count should be int, got '1'"),
        ({"pair": [1]}, "pair should have 2 items, got 1"),
        ({"many": [{"count": 1, "kind": "z"}]}, r"many\[0\].kind"),
        ({"many": "abc"}, "many should be a list"),
        ({"maybe": "x"}, "maybe should be int"),
        ({"name": "bad"}, "name is bad"),
    ],
)
def test_every_misfit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        record_from_mapping(Outer, GOOD | change)


def test_not_a_mapping_is_an_error() -> None:
    with pytest.raises(RecordError, match="table of fields"):
        record_from_mapping(Outer, [1, 2])  # type: ignore[arg-type]
