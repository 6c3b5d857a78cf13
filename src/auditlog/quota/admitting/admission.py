"""Whether a request may be carried out: asks the quotas that count it, and settles when it is over.

What HTTP, WebSocket and gRPC have in common. All quotas have to agree: what the others have granted
for a request that one refuses is given back. An error in here is reported, and the request goes on.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Self

from auditlog.capture.in_flight import Identity, InFlight
from auditlog.capture.shared import Identify
from auditlog.quota.counting.counted import GRPC, Counting, Countings
from auditlog.quota.counting.subjects import EVERYBODY, fitting, subject_of, tenant_of
from auditlog.quota.model import Actor, Decision, Key, Per
from auditlog.quota.quotas import Quotas
from auditlog.reporting import Reporter, describe

_NOBODY: Final[Identity] = (None, None, None)
_MAX_ACTION_CHARS: Final = 255
_COUNTINGS: Final = Countings()


class Traffic(NamedTuple):
    """A request, as far as quotas have to know it before it is served."""

    method: str
    """Of HTTP, or the name of an RPC's."""
    path: str
    """As a policy's rules see it; of an RPC the full method."""
    is_write: bool
    """May it change something?"""
    address: str | None
    """The client's."""
    api_key: str | None
    """What the application takes for the client's key, in clear."""
    holder: InFlight | None
    """Tells who asks, and when it is over. None: nobody does, and nothing is ever given back."""


class Ask(NamedTuple):
    """What is to be asked of one quota."""

    counting: Counting
    key: Key
    amount: int
    """0: only whether anything is left, for what is charged afterwards."""


async def admit(quotas: Quotas, traffic: Traffic) -> "Admission":
    """Ask all quotas that count a request, one after the other; raises nothing of its own.

    If it is cancelled, what was granted by then is given back.
    """
    with Admission(quotas, traffic) as admission:
        for ask in admission.asks():
            quota, key, amount = ask.counting.quota, ask.key, ask.amount
            if amount:
                decision = await quotas.decide(quota, key, amount, admission.actor)
            else:
                decision = await quotas.look(quota, key)
            if not admission.take(ask, decision):
                break
    return admission


def admit_in_thread(quotas: Quotas, traffic: Traffic) -> "Admission":
    """Do what `admit` does, from a thread without an event loop; blocks."""
    with Admission(quotas, traffic) as admission:
        for ask in admission.asks():
            quota, key, amount = ask.counting.quota, ask.key, ask.amount
            if amount:
                decision = quotas.decide_in_thread(quota, key, amount, admission.actor)
            else:
                decision = quotas.look_in_thread(quota, key)
            if not admission.take(ask, decision):
                break
    return admission


def key_of(key: Identify | None, source: Any, reporter: Reporter) -> str | None:
    """Ask the application for a client's API key; what that raises is reported.

    Args:
        key: The application's; None: there are no keys.
        source: The ASGI scope, or the context of an RPC.
        reporter: Of the log.
    """
    try:
        answer = None if key is None else key(source)
        return None if answer is None else str(answer)
    except Exception as error:  # noqa: BLE001  # the application's code may do anything
        reporter.report(
            "auditlog.identify_failed", f"the callable for API keys raised {describe(error)}"
        )
        return None


class Admission:
    """What the quotas have said about one request, and what has to follow from it."""

    __slots__ = ("_granted", "_later", "_quotas", "_traffic", "actor", "decisions", "refusal")

    refusal: Decision | None
    """Of the quota that is used up; None: the request may be carried out."""

    def __init__(self, quotas: Quotas, traffic: Traffic) -> None:
        self._quotas = quotas
        self._traffic = traffic
        self.actor = Actor()
        self.refusal = None
        self.decisions: list[Decision] = []
        """In the order in which the quotas were asked; of those that let the request pass."""
        self._granted: list[tuple[Counting, Decision]] = []
        self._later: list[tuple[Counting, Key | None]] = []
        """What is charged when the request is over; without a key where that is known then."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> bool:
        """Let what follows from the answers do so. An error is reported; a cancellation passes."""
        if error is None or isinstance(error, Exception):
            self._safely(self._conclude, error)
            return True
        self._safely(self._give_back, None)
        return False

    # While it is asked.

    def asks(self) -> Iterable[Ask]:
        """Find out who asks, and return what is to be asked."""
        traffic, quotas = self._traffic, self._quotas
        identity = _NOBODY if traffic.holder is None else traffic.holder.identity()
        tenant = tenant_of(identity[2], quotas.recorder.settings)
        asks = []
        for counting in _COUNTINGS.of(quotas.definitions.automatic(tenant)):
            if self._counts(counting):
                key = self._key(counting, tenant, identity)
                if key is None:
                    self._later.append((counting, None))
                else:
                    asks.append(Ask(counting, key, int(counting.is_paid_before(identity[0]))))
        if asks:
            self.actor = _actor(traffic, identity)
        else:
            # It may be the database alone that has quotas.
            quotas.begin()
        return asks

    def _counts(self, counting: Counting) -> bool:
        """Tell whether a quota is about the request; health checks only if it names their path."""
        traffic = self._traffic
        if not counting.covers(traffic.method, traffic.path, traffic.is_write):
            return False
        if counting.quota.routes or traffic.holder is None:
            return True
        return not traffic.holder.is_exempt()

    def take(self, ask: Ask, decision: Decision) -> bool:
        """Take note of an answer; return whether the others have to be asked, too."""
        if not decision.allowed:
            self.refusal = decision
            if not ask.amount:
                self._quotas.refuse(decision, self.actor)
            return False
        self.decisions.append(decision)
        if ask.amount:
            self._granted.append((ask.counting, decision))
        else:
            self._later.append((ask.counting, ask.key))
        return True

    def _conclude(self) -> None:
        """Give back at once what a refused request was granted; settle when another is over."""
        holder = self._traffic.holder
        if self.refusal is not None:
            if holder is not None:
                holder.metadata["audit.quota_refused"] = self.refusal.quota.id
            self._give_back()
        elif holder is not None and (self._granted or self._later):
            holder.when_over(self.settle)

    def _give_back(self) -> None:
        granted, self._granted, self._later = self._granted, [], []
        for _, decision in granted:
            self._quotas.give_back(decision)

    def _safely(self, act: Callable[[], None], error: Exception | None) -> None:
        """Do it, and report what must not become an error of the request."""
        try:
            act()
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            error = failure
        if error is not None:
            self._quotas.recorder.reporter.report(
                "auditlog.quota_failed", f"a request is not held to its quotas: {describe(error)}"
            )

    # When it is over.

    def settle(self, request: InFlight) -> None:
        """Give back what does not count, and charge what is known only now."""
        for counting, decision in self._granted:
            if counting.is_refunded(request):
                self._quotas.give_back(decision)
        for counting, key in self._later:
            if not counting.is_refunded(request):
                self._charge(counting, key, request)

    def _charge(self, counting: Counting, key: Key | None, request: InFlight) -> None:
        units = counting.units(request)
        if not units:
            return
        identity = request.identity()
        if key is None:
            tenant = tenant_of(identity[2], self._quotas.recorder.settings)
            key = self._key(counting, tenant, identity)
            if key is None:
                return
            self._note_late(counting)
        self._quotas.charge(counting.quota, key, units, _actor(self._traffic, identity))

    def _note_late(self, counting: Counting) -> None:
        self._quotas.recorder.reporter.report(
            "auditlog.quota_subject_late",
            f"the quota {counting.quota.id!r} counts, but refuses nobody: whose usage it is becomes"
            " known in the handler; let the middleware know by a callable, or spend in the handler",
        )

    def _key(self, counting: Counting, tenant: str, identity: Identity) -> Key | None:
        quota, traffic = counting.quota, self._traffic
        if quota.per == (Per.TENANT,):
            return Key(quota.id, tenant, EVERYBODY)
        parts = {
            Per.ORGANISATION: identity[1],
            Per.USER: identity[0],
            Per.KEY: traffic.api_key,
            Per.ADDRESS: traffic.address,
            Per.ROUTE: counting.route(traffic.path, _protocol_of(traffic)),
        }
        subject = subject_of(quota.per, parts, self._quotas.recorder.settings)
        return None if subject is None else Key(quota.id, tenant, subject)


def _protocol_of(traffic: Traffic) -> int:
    return 0 if traffic.holder is None else traffic.holder.protocol


def _actor(traffic: Traffic, identity: Identity) -> Actor:
    user_id, resource_owner, _ = identity
    return Actor(
        None if user_id is None else fitting(user_id),
        None if resource_owner is None else fitting(resource_owner),
        _action(traffic),
    )


def _action(traffic: Traffic) -> str:
    """Say what is asked for: method and path, redacted, as in the request's own row."""
    holder = traffic.holder
    path = traffic.path if holder is None else holder.target().partition("?")[0]
    action = path if _protocol_of(traffic) == GRPC else f"{traffic.method} {path}"
    return action[:_MAX_ACTION_CHARS]
