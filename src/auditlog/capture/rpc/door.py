"""What the interceptors of both servers take, and refuse, alike."""

from inspect import iscoroutinefunction

from auditlog.capture.policy import Policy
from auditlog.capture.policy.file import load_policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.shared import Capture, Identify
from auditlog.errors import SettingsError


def capture_of(audit: Recorder, policy: Policy | None, **identify: Identify | None) -> Capture:
    """Build what the RPCs of one interceptor share.

    Args:
        audit: The log to write to.
        policy: None: from `policy_file` of the settings, or the default one.
        identify: The callables for `user_id`, `instance_id` and `resource_owner`.

    Raises:
        PolicyError: the policy file is invalid.
        SettingsError: a setting or a callable that cannot work.
    """
    for name, function in identify.items():
        _refuse_coroutine(name, function)
    if policy is None:
        policy_file = audit.settings.policy_file
        policy = load_policy(policy_file) if policy_file else Policy()
    return Capture.of(audit, policy, asks=any(identify.values()), **identify)


def _refuse_coroutine(name: str, identify: Identify | None) -> None:
    call = getattr(identify, "__call__", None)  # noqa: B004  # not whether it is callable: which
    if iscoroutinefunction(identify) or iscoroutinefunction(call):
        raise SettingsError(
            f"{name} must be a plain function of the ServicerContext: it is asked where nobody"
            " can wait; let the handler or an interceptor annotate() what takes time to find out"
        )
