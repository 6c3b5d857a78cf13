"""What a handler does with quotas, on both servers."""

from dataclasses import dataclass
from typing import Any

from rpc_steps import AsyncCall


@dataclass
class Spend:
    """A step that spends: by `await` in a coroutine, in its thread where the handler has one."""

    quota_id: str
    quotas: Any = None

    def __call__(self, call: Any) -> Any:
        spending = self.quotas.spend(self.quota_id)
        if isinstance(call, AsyncCall):
            return spending
        with spending:
            return None
