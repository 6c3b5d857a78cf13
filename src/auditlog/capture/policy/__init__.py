"""What is recorded: rules in order, the first that matches decides."""

from auditlog.capture.policy.policy import DEFAULT_RULES, Decision, Explanation, Policy
from auditlog.capture.policy.rules import Level, Rule

__all__ = ["DEFAULT_RULES", "Decision", "Explanation", "Level", "Policy", "Rule"]
