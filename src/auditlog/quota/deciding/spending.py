"""One spending of a handler's: `await quotas.spend(...)`, or a block around what is paid for."""

import asyncio
import warnings
from collections.abc import Generator
from typing import Any, Protocol, Self

from auditlog.quota.deciding.order import Order
from auditlog.quota.model import Decision, QuotaExceeded


class Spender(Protocol):
    """Carries orders out. `Quotas` does."""

    async def carry_out(self, order: Order) -> Decision:
        """Decide, and tell."""

    def carry_out_in_thread(self, order: Order) -> Decision:
        """Do what `carry_out` does; blocks."""

    def give_back(self, decision: Decision) -> None:
        """Take a spending back."""


class Spending:
    """Spends once, when it is awaited or entered. Leaving the block by an error takes it back.

    `with` blocks, and is for threads; on an event loop there are `await` and `async with`.

    Raises:
        QuotaExceeded: it is refused. When awaited or entered, as all of these.
        QuotaError: there is no such quota, or it is not known whose usage it is.
        RuntimeError: it is spent already; or `with` was used on an event loop.
    """

    __slots__ = ("_begun", "_decision", "_order", "_spender")

    def __init__(self, spender: Spender, order: Order) -> None:
        self._spender = spender
        self._order = order
        self._begun = False
        self._decision: Decision | None = None

    @property
    def decision(self) -> Decision:
        """What was decided: what is left, and for how long.

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
        if kind is not None:
            self._spender.give_back(self.decision)

    def __enter__(self) -> Self:
        self._begin()
        _refuse_loop()
        self._conclude(self._spender.carry_out_in_thread(self._order))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._spender.give_back(self.decision)

    def __del__(self) -> None:
        # As of a coroutine: a forgotten `await` would let everything pass, and nobody would know.
        if not self._begun:
            warnings.warn(
                f"spend({self._order.quota_id!r}) was neither awaited nor entered",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )

    async def _spend(self) -> Decision:
        self._begin()
        return self._conclude(await self._spender.carry_out(self._order))

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("it is spent already: call spend() for each spending")
        self._begun = True

    def _conclude(self, decision: Decision) -> Decision:
        self._decision = decision
        if not decision.allowed:
            raise QuotaExceeded(decision)
        return decision


def _refuse_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("`with` would block the event loop: write `async with quotas.spend(...)`")
