"""One spending of a handler's: `await quotas.spend(...)`, or a block around what is paid for."""

import asyncio
import warnings
from collections.abc import Generator
from typing import Any, Protocol, Self

from auditlog.quota.model import Actor, Decision, Key, Quota, QuotaExceeded


class Spender(Protocol):
    """Decides. `Quotas` does."""

    async def decide(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Spend, and tell."""

    def decide_in_thread(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Do what `decide` does; blocks."""

    def give_back(self, decision: Decision) -> None:
        """Take a spending back."""


class Spending:
    """Spends once, when it is awaited or entered. Leaving the block by an error takes it back.

    `with` blocks, and is for threads; on an event loop there are `await` and `async with`.

    Raises:
        QuotaExceeded: refused. On awaiting or entering, as the others.
        RuntimeError: it is spent already; or `with` was used on an event loop.
    """

    __slots__ = ("_begun", "_decision", "_spender", "_what")

    def __init__(self, spender: Spender, quota: Quota, key: Key, amount: int, actor: Actor) -> None:
        self._spender = spender
        self._what = (quota, key, amount, actor)
        self._begun = False
        self._decision: Decision | None = None

    @property
    def decision(self) -> Decision:
        """What was decided: what is left, and until when.

        Raises:
            RuntimeError: nothing yet.
        """
        if self._decision is None:
            raise RuntimeError("nothing is decided yet: await the spending, or enter its block")
        return self._decision

    def __await__(self) -> Generator[Any, Any, Decision]:
        return self._spend().__await__()

    async def __aenter__(self) -> Self:
        await self._spend()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._leave(failed=kind is not None)

    def __enter__(self) -> Self:
        _refuse_loop()
        self._begin()
        self._conclude(self._spender.decide_in_thread(*self._what))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._leave(failed=kind is not None)

    def __del__(self) -> None:
        if not self._begun:
            warnings.warn(
                f"spend({self._what[0].id!r}) was neither awaited nor entered: nothing was spent",
                RuntimeWarning,
                source=self,
                stacklevel=2,
            )

    async def _spend(self) -> Decision:
        self._begin()
        return self._conclude(await self._spender.decide(*self._what))

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("it is spent already: call spend() for each spending")
        self._begun = True

    def _conclude(self, decision: Decision) -> Decision:
        self._decision = decision
        if not decision.allowed:
            raise QuotaExceeded(decision)
        return decision

    def _leave(self, *, failed: bool) -> None:
        if failed:
            self._spender.give_back(self.decision)


def _refuse_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("`with` would block the event loop: write `async with quotas.spend(...)`")
