"""What holds of every plan, whatever the state: gaps, foreign partitions, holds, neglect."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from auditlog.partitions.model import (
    Default,
    Foreign,
    Hold,
    Leaf,
    Plan,
    Retirement,
    TableConfig,
    TableState,
)
from auditlog.partitions.planning import MAX_LEAVES, plan
from auditlog.partitions.planning.ranges import as_range
from auditlog.partitions.spans import Span
from plan_scene import GB, applied, of_kind

MANY = settings(max_examples=100, deadline=None)
FIRST_DAY = datetime(2022, 1, 1, tzinfo=UTC)

days = st.integers(0, 3000)
instants = st.builds(
    lambda day, hour: FIRST_DAY + timedelta(days=day, hours=hour),
    days,
    st.sampled_from([0, 0, 0, 0, 5.5]),
)
maybe = st.none() | instants
spans = st.one_of(
    st.builds(Span, months=st.integers(1, 40)), st.builds(Span, days=st.integers(1, 900))
)
steps = st.sampled_from(["month", "week", "day"])
configs = st.builds(
    TableConfig,
    table=st.just("logs"),
    by=st.none() | steps,
    ahead=st.none() | spans,
    retain=st.none() | spans,
    retain_bytes=st.none() | st.integers(1, 50 * GB),
    min_retain=st.sampled_from([Span(days=7), Span(days=1), Span(months=2)]),
    tenants=st.dictionaries(st.sampled_from(["a", "b"]), spans),
    archive=st.sampled_from(["/archive", None]),
    drop_without_archive=st.booleans(),
    max_retire=st.integers(0, 5) | st.just(1000),
)
holds = st.builds(
    Hold,
    hold_id=st.just("h"),
    table=st.sampled_from([None, "logs", "quota_logs"]),
    instance_id=st.sampled_from([None, "a"]),
    start=maybe,
    end=maybe,
    reason=st.just("matter"),
)
retirements = st.builds(
    Retirement,
    retirement_id=st.sampled_from([None, "r"]),
    partition=st.just("gone"),
    oid=st.integers(1, 20),
    lower=maybe,
    upper=instants,
    state=st.sampled_from(["detaching", "detached", "archived", "deleting"]),
    is_attached=st.booleans(),
    exists=st.booleans(),
    instance_id=st.sampled_from([None, "a", "z"]),
)
defaults = st.builds(
    Default,
    name=st.just("rest"),
    oid=st.just(98),
    size_bytes=st.just(9),
    rows=st.sampled_from([None, 0, 5]),
    first=maybe,
    last=maybe,
)
kinds = st.sampled_from(["leaf", "leaf", "leaf", "foreign", "detaching", "gap"])


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    """Leaves and foreign partitions between random instants, and gaps."""
    edges = sorted(draw(st.sets(instants, max_size=12)))
    each_kind = draw(st.lists(kinds, min_size=13, max_size=13))
    ends: list[tuple[datetime | None, datetime | None]] = list(pairwise(edges))
    if edges and draw(st.booleans()):
        ends.insert(0, (None, edges[0]))
    leaves, foreign = [], []
    for oid, ((lower, upper), kind) in enumerate(zip(ends, each_kind, strict=False), 1):
        assert upper is not None
        if kind == "foreign":
            foreign.append(Foreign(f"foreign{oid}", oid, "it has no mark", lower, upper))
        elif kind != "gap":
            leaves.append(Leaf(f"leaf{oid}", oid, lower, upper, oid * GB, -1, kind == "detaching"))
    if edges and draw(st.integers(0, 9)) == 0:
        foreign.append(Foreign("endless", 99, "its upper bound is MAXVALUE", edges[-1], None))
    return {"leaves": tuple(leaves), "foreign": tuple(foreign)}


@st.composite
def states(draw: st.DrawFn) -> TableState:
    return TableState(
        "logs",
        1,
        is_partitioned=True,
        now=draw(instants) + timedelta(hours=7),
        step=draw(steps),
        ahead=draw(st.none() | spans),
        **draw(ranges()),
        holds=tuple(draw(st.lists(holds, max_size=2))),
        retired_until=draw(maybe),
        locks_available=6400,
    )


def well(state: TableState, config: TableConfig) -> Plan:
    """A plan while both clocks agree."""
    return plan(state, config, host_now=state.now)


def changes(planned: Plan) -> list[tuple[str, str]]:
    return [(o.kind, o.partition) for o in of_kind(planned, "create", "detach", "finalize")]


@given(states(), configs, st.data())
@MANY
def test_any_state_has_a_plan(state: TableState, config: TableConfig, data: st.DataObject) -> None:
    """Never an exception, and never an operation on what is not ours."""
    state = replace(
        state,
        step=data.draw(st.none() | steps),
        default=data.draw(st.none() | defaults),
        retirements=tuple(data.draw(st.lists(retirements, max_size=3))),
        maintained_at=data.draw(maybe),
        locks_needed=data.draw(st.sampled_from([0, 90, 9000])),
        unread=data.draw(st.sampled_from([{}, {}, {}, {"holds": "grant it"}])),
        tenants_present={leaf.name: frozenset("a") for leaf in state.leaves},
    )
    skew = timedelta(hours=data.draw(st.integers(-2, 2)))
    planned = plan(state, config, host_now=state.now + skew)
    ours = {*(leaf.name for leaf in state.leaves), "gone", "logs"}
    for operation in planned.operations:
        if operation.kind not in ("create", "heal"):
            assert operation.partition in ours, operation
    if abs(skew) > timedelta(hours=1):
        assert not of_kind(planned, "detach", "drop", "delete", "archive")


@given(states(), configs)
@MANY
def test_no_two_ranges_overlap(state: TableState, config: TableConfig) -> None:
    """Neither with those that are there nor with each other; nor do two have one name."""
    after = applied(state, well(state, config))
    both = sorted(as_range(each.lower, each.upper) for each in (*after.leaves, *after.foreign))
    for (_, upper), (lower, _) in pairwise(both):
        assert upper <= lower
    names = [each.name for each in after.leaves]
    assert len(names) == len(set(names))


@given(states(), configs)
@MANY
def test_every_instant_ahead_has_a_partition(state: TableState, config: TableConfig) -> None:
    """From now to now + ahead, unless there would be too many, or one is being detached there."""
    planned = well(state, config)
    assume("too_many" not in {finding.code for finding in planned.findings})
    assume(not any(leaf.is_detaching for leaf in state.leaves))
    after = well(applied(state, planned), config)
    ahead = (config.ahead or state.ahead or Span(months=3)).after(state.now)
    assert after.covered_until is not None
    assert after.covered_until > ahead


@given(states(), configs)
@MANY
def test_rows_of_today_always_have_a_partition(state: TableState, config: TableConfig) -> None:
    """However many partitions there are, and whatever retention took."""
    many = tuple(
        Leaf(f"old{n}", -n, FIRST_DAY - timedelta(days=n), FIRST_DAY - timedelta(days=n - 1), 0, 0)
        for n in range(MAX_LEAVES, 0, -1)
    )
    leaves = tuple(leaf for leaf in state.leaves if leaf.lower and not leaf.is_detaching)
    state = replace(state, leaves=(*many, *leaves), foreign=())
    after = well(applied(state, well(state, config)), config)
    assert after.covered_until is not None


@given(states(), configs)
@MANY
def test_nothing_young_goes(state: TableState, config: TableConfig) -> None:
    """Nothing that ends after the cutoff, after `min_retain`, or after now; and nothing held."""
    planned = well(state, config)
    youngest = config.min_retain.before(state.now)
    gone = of_kind(planned, "detach")
    for operation in gone:
        assert operation.upper is not None
        assert operation.upper <= youngest
        cutoff = config.cutoff(state.now)
        assert config.retain_bytes is not None or (cutoff and operation.upper <= cutoff)
        for hold in state.holds:
            assert not hold.covers("logs", operation.lower, operation.upper)
    assert len(gone) <= config.max_retire
    assert not gone or state.leaves[-1].oid not in {operation.oid for operation in gone}


@given(states(), configs)
@MANY
def test_nothing_is_made_that_is_to_go(state: TableState, config: TableConfig) -> None:
    """Below the cutoff or what retention has taken, but for the rows of today."""
    cutoff = config.cutoff(state.now)
    for operation in of_kind(well(state, config), "create"):
        assert operation.lower is not None
        assert operation.upper is not None
        if not operation.lower <= state.now < operation.upper:
            assert cutoff is None or operation.upper > cutoff
        if state.retired_until is not None and state.retired_until <= state.now:
            assert operation.lower >= state.retired_until


@given(states(), configs)
@MANY
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(
    state: TableState, config: TableConfig
) -> None:
    """The next plan makes nothing and takes nothing."""
    # After years of neglect the last one goes a run later, when it is not the last any more.
    assume(not state.leaves or state.leaves[-1].upper > state.now)
    config = replace(config, max_retire=1000)
    planned = well(state, config)
    assume("too_many" not in {finding.code for finding in planned.findings})
    after = applied(state, planned)
    assert changes(well(after, config)) == []
