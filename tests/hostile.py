"""Values that break what is careless: for metadata, for text columns, for every column.

The ones with a name are objects of code that misbehaves; `anything` mixes them with random ones.
"""

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import PurePosixPath
from typing import Any, Never

from hypothesis import strategies as st


class Colour(enum.Enum):
    RED = "red"
    BROKEN = "\ud800\0"


@dataclass
class Point:
    x: float
    _secret: str = "private"


class EverythingRaises:
    """Whatever is asked of it, it raises; its name is all there is."""

    def _refuse(self, *_: object) -> Never:
        raise RuntimeError("no")

    __str__ = __repr__ = __iter__ = __len__ = __bool__ = __eq__ = __hash__ = _refuse  # type: ignore[assignment]
    __int__ = __index__ = __float__ = __bytes__ = __fspath__ = __format__ = _refuse

    @property
    def value(self) -> Never:
        raise RuntimeError("no")

    @property
    def low_priority(self) -> Never:
        raise RuntimeError("no")


class LyingClass(EverythingRaises):
    @property  # type: ignore[misc]
    def __class__(self) -> Never:
        raise RuntimeError("no class either")


class LyingType(type):
    @property
    def __module__(cls) -> Never:  # type: ignore[override]
        raise RuntimeError("no module")


class Nameless(metaclass=LyingType):
    pass


class Text(str):
    """A string whose methods lie."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        return b"\xff\0"

    def __str__(self) -> str:
        return "another"

    def __len__(self) -> int:
        return 1

    def __contains__(self, _: object) -> bool:
        return False


class Number(int):
    """An integer whose operators raise."""

    def _refuse(self, *_: object) -> Never:
        raise RuntimeError("no")

    __lt__ = __gt__ = __le__ = __ge__ = __sub__ = __rsub__ = __index__ = __int__ = _refuse  # type: ignore[assignment]


class RaisingMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Never:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 3


class EndlessMapping(RaisingMapping):
    def __getitem__(self, key: str) -> Any:
        return key

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield str(number := number + 1)


class NoPairs(EndlessMapping):
    def items(self) -> Any:
        return [1, 2, 3]


class EndlessSequence(Sequence[int]):
    def __getitem__(self, index: Any) -> Any:
        return index

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class HostileZone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> Never:
        raise RuntimeError("no offset")


class NoOffset(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> None:
        return None


def circular_list() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def circular_dict() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    return circle


def nested(depth: int, *, mapping: bool = False) -> Any:
    """A structure far deeper than the interpreter's stack. Taken apart by `dismantle`."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if mapping else [value]
    return value


OBJECTS: tuple[Any, ...] = (
    EverythingRaises(),
    LyingClass(),
    Nameless(),
    Nameless,
    Text("text"),
    Number(7),
    RaisingMapping(),
    EndlessMapping(),
    NoPairs(),
    EndlessSequence(),
    circular_list(),
    circular_dict(),
    object(),
    object,
    print,
    Colour.RED,
    Colour.BROKEN,
    Point(float("nan")),
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=HostileZone()),
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=NoOffset()),
    dt.datetime(1, 1, 1),  # noqa: DTZ001  # a naive one is meant
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001  # likewise
    dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=23))),
    dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=23))),
    dt.date(1, 1, 1),
    dt.time(12, tzinfo=dt.UTC),
    dt.timedelta.max,
    decimal.Decimal("1.10"),
    decimal.Decimal("sNaN"),
    decimal.Decimal("1e999999"),
    uuid.UUID(int=1),
    ip_address("::1"),
    ip_network("10.0.0.0/8"),
    PurePosixPath("/etc/\udcff"),
    float("nan"),
    float("-inf"),
    1e308,
    5e-324,
    -0.0,
    2**63,
    2**64,
    -(2**63),
    10**4000,
    10**5000,
    True,
    b"text",
    b"\xff\xfe\0",
    bytearray(b"\0"),
    memoryview(b"abcdef")[::2],
    {1, 2},
    frozenset({"a"}),
    range(3),
    ...,
    NotImplemented,
    "",
    "\0",
    "\ud800",
    "\udc80\ud83d",
    "\ud83d\ude00",
    "\uffff\u202e\x1b[31m\r\n\u2028",
    "\\u0000",
    "e\u0301" * 100,
    {"\0": "\0", "\ud800": 1, "": 2},
    {1: 1, "1": 2, None: 3, False: 4, 1.5: 5, b"a": 6, (1, 2): 7, float("nan"): 8, 10**30: 9},
    {"audit.repaired": "mine"},
    [[[[{"deep": [float("inf")]}]]]],
)

_TEXTS = st.text(
    st.characters() | st.sampled_from('\0\ud800\udfff\\"\u2028\x7f\uffff'), max_size=40
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | _TEXTS
    | st.binary(max_size=40)
    | st.datetimes()
    | st.datetimes(timezones=st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.ip_addresses()
    # By number: Hypothesis would call the `repr` of what it samples from.
    | st.integers(0, len(OBJECTS) - 1).map(OBJECTS.__getitem__)
)
_KEYS = _TEXTS | st.sampled_from(
    (None, True, 0, 1, -1, 2.5, float("nan"), b"k", b"\xff", (1,), dt.date(1, 1, 1), Colour.RED)
)
anything: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda children: (
        st.lists(children, max_size=5)
        | st.tuples(children, children)
        | st.dictionaries(_KEYS, children, max_size=5)
        | st.builds(iter, st.lists(children, max_size=2))
    ),
    max_leaves=20,
)
"""Any value; nothing in it is shared between examples but the objects of `OBJECTS`."""
