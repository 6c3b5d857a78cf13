"""What holds keep from being taken, collected for one finding a hold."""

from datetime import datetime

from auditlog.partitions.model import Finding, Hold
from auditlog.partitions.planning.situation import Situation
from auditlog.partitions.planning.wording import listed


class Kept:
    """Asks for holds, and remembers which of them kept what."""

    def __init__(self, situation: Situation, tenant: str | None = None) -> None:
        """Ask for the rows of one tenant, or for any rows."""
        self._situation = situation
        self._tenant = tenant
        self._names: dict[Hold, list[str]] = {}

    def keeps(self, partition: str, lower: datetime | None, upper: datetime) -> bool:
        """Tell whether a hold is on rows of a range."""
        holds = [hold for hold in self._situation.state.holds if self._is_on(hold, lower, upper)]
        for hold in holds:
            self._names.setdefault(hold, []).append(partition)
        return bool(holds)

    def findings(self) -> list[Finding]:
        """Say what was kept."""
        whose = f"rows of {self._tenant} in " if self._tenant else ""
        return [
            Finding(
                "held",
                "note",
                f"hold {hold.hold_id} ({hold.reason}) keeps {whose}{listed(names)}",
                f"auditlog hold release {hold.hold_id}, once the matter is closed",
            )
            for hold, names in self._names.items()
        ]

    def _is_on(self, hold: Hold, lower: datetime | None, upper: datetime) -> bool:
        concerns = self._tenant is None or hold.instance_id in (None, self._tenant)
        return concerns and hold.covers(self._situation.state.table, lower, upper)
