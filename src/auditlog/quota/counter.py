"""What counts: the contract between those who spend and whatever keeps the counters."""

from typing import Protocol

from auditlog.quota.model import Actor, Decision, Key, Quota


class Counter(Protocol):
    """Keeps counters. `Engine` does with PostgreSQL; `auditlog.testing.MemoryCounter` in memory.

    All of it may be called from any thread and any event loop, and nothing raises because the
    database is away: `Quota.on_unavailable` decides then, and the decision's basis says so.
    """

    def try_now(self, quota: Quota, key: Key, amount: int) -> Decision | None:
        """Decide without waiting, by what this process holds or remembers.

        Returns:
            None: the database has to be asked.
        """

    async def ask(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Spend; wait for the database, for a limited time.

        Args:
            quota: As it is to be applied.
            key: Whose counter.
            amount: 0 or more units. 0 is always allowed, and tells the usage.
            actor: Told in the row of a threshold that this spending crosses.
        """

    def ask_in_thread(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Do what `ask` does, from a thread without an event loop; blocks."""

    async def look(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage, which may be as old as a second, and spend nothing.

        It is allowed while at least one unit is left, or if nothing is refused.
        """

    def look_in_thread(self, quota: Quota, key: Key) -> Decision:
        """Do what `look` does, from a thread without an event loop; blocks."""

    def charge(self, quota: Quota, key: Key, amount: int, actor: Actor) -> None:
        """Add what was used already, whatever the limit; does not wait."""

    def give_back(self, decision: Decision) -> None:
        """Take back a spending that was allowed; does not wait."""

    def begin(self) -> None:
        """Begin where nothing is to be spent yet, so that definitions are read; does not wait."""

    async def start(self) -> None:
        """Begin on the running loop. May be nested; without it, the first spending begins."""

    async def aclose(self) -> None:
        """Undo one `start`; the last one gives back what the process holds, and ends."""

    def close(self) -> None:
        """Do what `aclose` does, from code without a loop; blocks."""
