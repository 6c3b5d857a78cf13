"""What a counter is to do, unit by unit: slow, and plain enough to be believed."""

from typing import Any, NamedTuple

SLICES = 60


class Share(NamedTuple):
    """What an ask gets, and what it leaves behind."""

    granted: int
    extra: int
    previous: int
    usage: int
    crossed: list[tuple[int, int, int, int]]
    """Threshold, usage before and after, place among the spendings."""
    told: int


def share(ask: dict[str, Any], used: int, told: int) -> Share:
    """Grant one spending after the other."""
    crossed: dict[int, tuple[int, int, int, int]] = {}
    granted, usage = 0, used
    bounded = ask.get("enforced", True) and not ask.get("forced")
    while granted < ask["n"] and (not bounded or not ask["a"] or usage + ask["a"] <= ask["limit"]):
        usage += ask["a"]
        for percent in _reached(ask, usage, told) if ask["a"] else ():
            crossed.setdefault(percent, (percent, usage - ask["a"], usage, granted))
        granted += 1
    if ask["a"] and not granted:
        crossed = {percent: (percent, usage, usage, 0) for percent in _reached(ask, usage, told)}
    told = max(crossed, default=told)
    extra = 0
    if granted == ask["n"] and not ask.get("forced"):
        extra = max(each for each in range(ask["extra"] + 1) if _is_free(ask, usage, told, each))
    return Share(granted, extra, used, usage + extra, sorted(crossed.values()), told)


def _reached(ask: dict[str, Any], usage: int, told: int) -> list[int]:
    return [
        percent
        for percent in ask["thresholds"]
        if percent > told and usage and 100 * usage >= percent * ask["limit"]
    ]


def _is_free(ask: dict[str, Any], usage: int, told: int, extra: int) -> bool:
    is_small = not ask.get("enforced", True) or 8 * extra <= ask["limit"] - usage
    return not extra or (is_small and not _reached(ask, usage + extra, told))


class Period:
    """The counter of a period."""

    def __init__(self) -> None:
        self.used = self.told = 0

    def spend(self, ask: dict[str, Any]) -> Share:
        found = share(ask, self.used, self.told)
        self.used, self.told = found.usage, found.told
        return found

    def give_back(self, units: int) -> None:
        self.used = max(0, self.used - units)


class Window:
    """The counter of a window that rolls: units, by the slice in which they were spent."""

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self.units: dict[int, int] = {}
        self.newest = 0
        self.stretch = self.told = 0
        self.limit: int | None = None

    def slice(self, at_us: int) -> int:
        return at_us // -(-self.window_us // SLICES)

    def spend(self, ask: dict[str, Any], at_us: int) -> Share:
        newest = max(self.newest, self.slice(at_us))
        counted = [units for each, units in self.units.items() if each >= newest - SLICES]
        begun = max(at_us, newest * -(-self.window_us // SLICES)) // self.window_us
        told = self.told if begun == self.stretch else 0
        found = share(ask, sum(counted), told)
        is_other_limit = self.limit not in (None, ask["limit"]) and ask["a"]
        if found.usage != found.previous or found.told != told or is_other_limit:
            self.newest, self.stretch, self.told = newest, begun, found.told
            self.limit = ask["limit"]
            self.units[newest] = self.units.get(newest, 0) + found.usage - found.previous
        return found

    def fits(self, ask: dict[str, Any], at_us: int) -> bool:
        newest = max(self.newest, self.slice(at_us))
        counted = sum(units for each, units in self.units.items() if each >= newest - SLICES)
        return counted + max(1, ask["a"]) <= ask["limit"]

    def give_back(self, units: int, at_us: int) -> None:
        for each in sorted(self.units, reverse=True):
            if self.newest - SLICES <= each <= self.slice(at_us):
                taken = min(units, self.units[each])
                self.units[each] -= taken
                units -= taken
