"""A plan: pure functions of what there is, what is wanted, and two clocks.

state, config → situation → parts (operations and findings) → plan
"""

from auditlog.partitions.planning.creation import MAX_LEAVES
from auditlog.partitions.planning.locks import LOCKS, WAITS_FOR
from auditlog.partitions.planning.planner import plan
from auditlog.partitions.planning.situation import DEFAULT_AHEAD

__all__ = ["DEFAULT_AHEAD", "LOCKS", "MAX_LEAVES", "WAITS_FOR", "plan"]
