"""Plans for the situations that an operator meets: what is done, in which order, what is said."""

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from auditlog.partitions.model import (
    Blocker,
    Default,
    Foreign,
    Hold,
    Leaf,
    OperationKind,
    Retirement,
    TableConfig,
)
from auditlog.partitions.planning import LOCKS, MAX_LEAVES, WAITS_FOR, plan
from auditlog.partitions.spans import Span
from plan_scene import GB, KEPT, NOW, codes, day, leaf, months, of_kind, partitions, planned, table

YEAR = months("2026-01-01", "2027-03-01")
"""What is there on 15 December 2026, with a retention of three months to come."""


def hold(start: str | None = None, end: str | None = None, **more: str) -> Hold:
    return Hold(
        "hold-1",
        more.get("table"),
        more.get("tenant"),
        day(start) if start else None,
        day(end) if end else None,
        "matter 7",
    )


def detached(of: Leaf, state: str = "detached", **more: object) -> Retirement:
    """An entry about a partition that has left the table."""
    fields = {"is_attached": False, "exists": True, **more}
    return Retirement("r-1", of.name, of.oid, of.lower, of.upper, state, **fields)  # type: ignore[arg-type]


def test_nothing_to_do_is_an_empty_plan() -> None:
    """As nearly every run finds it."""
    result = planned(table(months("2026-10-01", "2027-03-01")))
    assert (result.operations, result.findings) == ((), ())
    assert result.covered_until == day("2027-04-01")


def test_partitions_are_made_from_now_to_the_horizon() -> None:
    """The window that the horizon lies in is the last one."""
    result = planned(table())
    assert partitions(result, "create") == [
        "logs_p202612",
        "logs_p202701",
        "logs_p202702",
        "logs_p202703",
    ]
    assert [operation.kind for operation in result.operations][-1] == "analyze"
    assert codes(result) == ["runway"]
    assert result.covered_until is None


def test_gaps_are_filled_from_the_newest() -> None:
    """After what the rows of today and tomorrow need; not before the oldest partition."""
    leaves = [*months("2026-09-01", "2026-09-01"), *months("2027-01-01", "2027-03-01")]
    result = planned(table(leaves))
    assert partitions(result, "create") == ["logs_p202612", "logs_p202611", "logs_p202610"]
    assert "gap" in codes(result)


def test_months_without_maintenance_are_made_up_for() -> None:
    """Rows of that time may wait in a spool."""
    result = planned(table(months("2026-08-01", "2026-09-01")), retain=None)
    assert partitions(result, "create")[4:] == ["logs_p202611", "logs_p202610"]


def test_nothing_is_made_below_what_retention_took() -> None:
    """Neither where partitions went, nor where they would go at once."""
    leaves = [*months("2026-01-01", "2026-01-01"), *months("2026-11-01", "2027-03-01")]
    result = planned(table(leaves, retired_until=day("2026-10-01")), retain=None)
    assert partitions(result, "create") == ["logs_p202610"]
    assert partitions(planned(table(leaves)), "create") == ["logs_p202610", "logs_p202609"]


def test_another_step_begins_where_the_old_partitions_end() -> None:
    """From months to days within a month, and from days to months."""
    result = planned(table(months("2026-11-01", "2026-12-01"), ahead=Span(days=18)), by="day")
    assert partitions(result, "create") == ["logs_p20270101", "logs_p20270102"]
    leaves = [leaf("2026-12-01", "2026-12-10"), leaf("2026-12-10", "2026-12-16")]
    (december, *_) = of_kind(planned(table(leaves)), "create")
    assert (december.partition, december.lower) == ("logs_p20261216", day("2026-12-16"))
    assert december.upper == day("2027-01-01")


def test_a_foreign_range_is_nobody_elses() -> None:
    """Windows are trimmed to it, on both sides; and it covers its rows."""
    foreign = Foreign("theirs", 7, "it has no mark", day("2027-01-10"), day("2027-01-20"))
    result = planned(table(months("2026-12-01", "2026-12-01"), foreign=(foreign,)))
    made = [(each.partition, each.lower, each.upper) for each in of_kind(result, "create")][:2]
    assert made == [
        ("logs_p202701", day("2027-01-01"), day("2027-01-10")),
        ("logs_p20270120", day("2027-01-20"), day("2027-02-01")),
    ]
    assert "foreign" in codes(result)
    endless = replace(foreign, lower=day("2027-01-01"), upper=None)
    result = planned(table(months("2026-12-01", "2026-12-01"), foreign=(endless,)))
    assert not of_kind(result, "create")


def test_partition_that_lost_its_mark_needs_somebody() -> None:
    """As after a restore without comments: retention would stop, and nobody would know."""
    bare = Foreign("logs_p202601", 1, "no mark", YEAR[0].lower, YEAR[0].upper)
    other = replace(bare, name="of_2026")
    for foreign, severity in ((bare, "human"), (other, "note")):
        result = planned(table(YEAR[1:], foreign=(foreign,)))
        (finding,) = [each for each in result.findings if each.code == "foreign"]
        assert (finding.severity, "COMMENT ON" in finding.remedy) == (severity, foreign is bare)


def test_a_part_of_this_month_that_is_old_already_is_not_made() -> None:
    """It would go with the next run."""
    foreign = Foreign("theirs", 7, "it has no mark", day("2026-12-05"), day("2026-12-08"))
    config = replace(KEPT, retain=Span(days=2), min_retain=Span(days=1))
    result = planned(table(foreign=(foreign,)), config)
    assert partitions(result, "create")[0] == "logs_p20261208"


def test_a_name_that_is_taken_is_told() -> None:
    """And the others are made all the same."""
    state = table(months("2026-12-01", "2026-12-01"), taken_names={"logs_p202702": "view"})
    result = planned(state)
    assert partitions(result, "create") == ["logs_p202701", "logs_p202703"]
    (finding,) = [each for each in result.findings if each.code == "name_taken"]
    assert (finding.severity, finding.partition) == ("human", "logs_p202702")
    assert "view" in finding.detail


def test_no_more_partitions_are_made_than_a_server_has_locks_for() -> None:
    """But the one of today always is."""
    start = day("2020-01-01")
    leaves = [
        leaf(f"{start + timedelta(days=n):%Y-%m-%d}", f"{start + timedelta(days=n + 1):%Y-%m-%d}")
        for n in range(MAX_LEAVES)
    ]
    result = planned(table(leaves), retain=None, by="day")
    assert partitions(result, "create") == ["logs_p20261215"]
    assert "too_many" in codes(result)


def test_what_is_old_goes_the_oldest_first_and_only_so_many() -> None:
    """Whole: the month that the cutoff lies in stays."""
    result = planned(table(YEAR), max_retire=2)
    kinds = [(each.kind, each.partition) for each in result.operations if each.kind != "analyze"]
    steps = ("detach", "archive", "drop")
    assert kinds == [(kind, name) for name in ("logs_p202601", "logs_p202602") for kind in steps]
    (finding,) = result.findings
    assert (finding.code, finding.severity) == ("more_to_retire", "drift")
    assert finding.detail.startswith("logs_p202603, logs_p202604, logs_p202605 and 3 more can go")
    assert partitions(planned(table(YEAR)), "drop")[-1] == "logs_p202608"


def test_a_partition_that_ends_at_the_cutoff_goes() -> None:
    """And one that ends a microsecond later stays."""
    at_cutoff = table(YEAR, now=day("2026-12-01"))
    assert partitions(planned(at_cutoff), "drop")[-1] == "logs_p202608"
    before = table(YEAR, now=day("2026-12-01") - timedelta(microseconds=1))
    assert partitions(planned(before), "drop")[-1] == "logs_p202607"


def test_without_an_archive_nothing_goes_unless_that_is_allowed() -> None:
    """The plan never makes up its mind by itself."""
    result = planned(table(YEAR), archive=None)
    assert not of_kind(result, "detach", "drop")
    assert codes(result) == ["no_archive"]
    result = planned(table(YEAR), archive=None, drop_without_archive=True, max_retire=1)
    assert [each.kind for each in result.operations] == ["detach", "drop", "analyze"]


def test_the_oldest_go_until_the_rest_fits() -> None:
    """Never what is young, and never the last."""
    result = planned(table(YEAR), retain=None, retain_bytes=12 * GB)
    assert partitions(result, "detach") == ["logs_p202601", "logs_p202602", "logs_p202603"]
    result = planned(table(YEAR), retain=None, retain_bytes=1)
    assert partitions(result, "detach")[-1] == "logs_p202611"
    result = planned(table(YEAR), retain=None, retain_bytes=1, min_retain=Span(months=2))
    assert partitions(result, "detach")[-1] == "logs_p202609"
    old = months("2026-01-01", "2026-02-01")
    result = planned(table(old), retain=None, retain_bytes=1)
    assert partitions(result, "detach") == ["logs_p202601"]


def test_what_is_held_stays_and_is_told_once() -> None:
    """Whatever tenant the hold is about, and by size as by age."""
    held = hold("2026-02-10", "2026-03-01", tenant="t")
    result = planned(table(YEAR, holds=(held,)))
    assert "logs_p202602" not in partitions(result, "detach", "archive", "drop")
    assert "logs_p202603" in partitions(result, "detach")
    (finding,) = [each for each in result.findings if each.code == "held"]
    assert (finding.severity, "hold-1" in finding.detail) == ("note", True)
    everything = table(YEAR, holds=(hold(),))
    assert not of_kind(planned(everything), "detach")
    assert not of_kind(planned(everything, retain=None, retain_bytes=1), "detach")
    assert of_kind(planned(table(YEAR, holds=(hold(table="quota_logs"),))), "detach")


@pytest.mark.parametrize("skew", [timedelta(hours=2), timedelta(days=-1), timedelta(days=36500)])
def test_nothing_goes_while_clocks_disagree(skew: timedelta) -> None:
    """Partitions are made on by the server's clock, from now on only."""
    of_tenant = {"logs_p202601": frozenset({"a"})}
    leaves = [each for each in YEAR if each.name not in ("logs_p202606", "logs_p202703")]
    state = table(leaves, tenants_present=of_tenant)
    config = replace(KEPT, tenants={"a": Span(days=30)})
    result = plan(state, config, host_now=NOW + skew)
    assert [each.kind for each in result.operations] == ["create", "analyze"]
    (finding,) = [each for each in result.findings if each.code == "clock"]
    assert finding.severity == "human"
    assert of_kind(plan(state, config, host_now=NOW + timedelta(minutes=59)), "drop", "delete")


def test_nothing_goes_when_the_server_is_before_the_last_run() -> None:
    """Its own clock has jumped, and the machine's with it."""
    assert not of_kind(planned(table(YEAR, maintained_at=NOW + timedelta(minutes=1))), "detach")
    assert of_kind(planned(table(YEAR, maintained_at=NOW - timedelta(minutes=1))), "detach")


def test_nothing_goes_when_the_last_run_was_too_long_ago_until_somebody_has_looked() -> None:
    """All clocks may have jumped, or nobody has maintained: only a person knows."""
    state = table(YEAR, maintained_at=NOW - timedelta(days=180))
    assert not of_kind(planned(state), "detach")
    assert "clock" in codes(planned(state))
    assert of_kind(plan(state, replace(KEPT, trust_clock=True), host_now=NOW), "detach")
    ahead = table(YEAR, maintained_at=NOW + timedelta(days=300))
    assert of_kind(plan(ahead, replace(KEPT, trust_clock=True), host_now=NOW), "detach")
    skewed = NOW + timedelta(hours=2)
    assert not of_kind(plan(ahead, replace(KEPT, trust_clock=True), host_now=skewed), "detach")


def test_nothing_that_was_begun_goes_on_while_clocks_disagree() -> None:
    """Unless it goes back into its table."""
    state = table(YEAR[8:], retirements=(detached(YEAR[0]),))
    result = plan(state, KEPT, host_now=NOW + timedelta(hours=2))
    assert (result.operations, codes(result)) == ((), ["clock"])
    result = plan(replace(state, holds=(hold(),)), KEPT, host_now=NOW + timedelta(hours=2))
    assert partitions(result, "attach") == ["logs_p202601"]


def test_a_detach_that_was_interrupted_is_ended_first() -> None:
    """And then taken further as it was meant."""
    first, *rest = YEAR
    pending = replace(first, is_detaching=True)
    entry = detached(first, "detaching", is_attached=True)
    result = planned(table([pending, *rest], retirements=(entry,)), max_retire=1)
    kinds = [(each.kind, each.partition) for each in result.operations]
    assert kinds[0] == ("finalize", "logs_p202601")
    assert kinds[1:3] == [("archive", "logs_p202601"), ("drop", "logs_p202601")]
    assert not of_kind(result, "detach"), "max_retire counts it"
    assert "pending_detach" in codes(result)


def test_what_was_begun_is_taken_further() -> None:
    """From where it was left; with the identity of its entry."""
    first, *rest = YEAR[8:]
    gone = YEAR[0]
    result = planned(table([first, *rest], retirements=(detached(gone),)))
    assert [each.kind for each in result.operations] == ["archive", "drop"]
    assert {each.retirement_id for each in result.operations} == {"r-1"}
    result = planned(table([first, *rest], retirements=(detached(gone, "archived"),)), archive=None)
    assert [each.kind for each in result.operations] == ["drop"]
    result = planned(table([first, *rest], retirements=(detached(gone),)), archive=None)
    assert (result.operations, codes(result)) == ((), ["no_archive"])


def test_a_detach_that_never_began_keeps_its_entry() -> None:
    """It was written down before, and the partition is where it was."""
    entry = detached(YEAR[0], "detaching", is_attached=True)
    (first, *_) = planned(table(YEAR, retirements=(entry,))).operations
    assert (first.kind, first.partition, first.retirement_id) == ("detach", "logs_p202601", "r-1")


def test_what_was_begun_goes_back_when_it_may_not_go_any_more() -> None:
    """A hold has come upon it, or retention was made longer."""
    rest, gone = YEAR[8:], YEAR[0]
    state = table(rest, retirements=(detached(gone, "archived"),))
    result = planned(replace(state, holds=(hold(),)))
    assert [each.kind for each in result.operations] == ["attach", "analyze"]
    assert "held" in codes(result)
    result = planned(state, retain=Span(months=24))
    assert partitions(result, "attach") == ["logs_p202601"]
    result = planned(state, retain=None)
    assert (result.operations, codes(result)) == ((), ["no_retention"])


def test_nothing_is_made_where_something_goes_back() -> None:
    """Both would want the same range."""
    gap = [*YEAR[8:9], *YEAR[10:]]
    result = planned(table(gap, retirements=(detached(YEAR[9]),), holds=(hold(),)))
    assert [each.kind for each in result.operations] == ["attach", "analyze"]


def test_what_cannot_go_back_is_told() -> None:
    """Another partition has its range."""
    state = table(YEAR, retirements=(detached(replace(YEAR[0], oid=7)),), holds=(hold(),))
    result = planned(state)
    assert not of_kind(result, "attach", "drop")
    assert "range_taken" in codes(result)


def test_what_vanished_is_told() -> None:
    """Somebody dropped it by hand."""
    result = planned(table(YEAR[8:], retirements=(detached(YEAR[0], exists=False),)))
    assert (result.operations, codes(result)) == ((), ["vanished"])
    assert "the state 'dropped'" in result.findings[0].remedy


@pytest.mark.parametrize("is_attached", [False, True])
def test_what_a_dump_brought_back_is_told_with_what_makes_a_run_go_on(*, is_attached: bool) -> None:
    """It has another identity than its entry, and is told once: nobody is to write it off."""
    entry = detached(YEAR[8], exists=False)
    there = detached(replace(YEAR[8], oid=7))
    found = () if is_attached else (replace(there, retirement_id=None),)
    result = planned(table(YEAR[8 if is_attached else 9 :], retirements=(entry, *found)))
    assert (result.operations, codes(result)) == ((), ["vanished"])
    assert "the partition_oid" in result.findings[0].remedy


def test_orphans_and_pending_detaches_of_others_are_left_alone() -> None:
    """Nothing is detached while PostgreSQL would refuse it."""
    orphan = replace(detached(YEAR[0]), retirement_id=None)
    foreign = Foreign("theirs", 7, "no mark", day("2020-01-01"), day("2020-02-01"), True)
    result = planned(table(YEAR, retirements=(orphan,), foreign=(foreign,)))
    assert result.operations == ()
    assert codes(result) == ["pending_detach", "orphan", "foreign"]


TENANTS = replace(KEPT, retain=None, tenants={"a": Span(days=60), "b": Span(months=24)})


def test_rows_of_a_tenant_are_deleted_below_its_cutoff() -> None:
    """In closed partitions where it has any; in the one that the cutoff lies in, only before it."""
    present = {each.name: frozenset({"a"}) for each in YEAR if each.name != "logs_p202602"}
    result = planned(table(YEAR, tenants_present=present), TENANTS)
    deletions = of_kind(result, "delete")
    assert [each.partition for each in deletions] == [
        each.name for each in YEAR[:10] if each.name != "logs_p202602"
    ]
    assert {each.tenant for each in deletions} == {"a"}
    assert deletions[0].before == day("2026-02-01")
    assert deletions[-1].before == NOW - timedelta(days=60)


def test_rows_of_a_tenant_that_are_held_stay() -> None:
    """A hold on another tenant, or on what is younger, keeps none of them."""
    state = table(YEAR[:3] + YEAR[9:], tenants_present={"logs_p202602": frozenset({"a"})})
    assert of_kind(planned(state, TENANTS), "delete")
    for held in (hold(tenant="a"), hold(), hold("2026-02-27", "2026-02-28")):
        result = planned(replace(state, holds=(held,)), TENANTS)
        assert not of_kind(result, "delete")
        assert "held" in codes(result)
    for held in (hold(tenant="b"), hold("2026-03-01"), hold(table="quota_logs")):
        assert of_kind(planned(replace(state, holds=(held,)), TENANTS), "delete")


def test_a_deletion_that_was_begun_is_ended() -> None:
    """Even where no row is left, or the partition goes as a whole."""
    begun = detached(YEAR[0], "deleting", is_attached=True, instance_id="a")
    config = replace(TENANTS, retain=Span(months=3))
    result = planned(table(YEAR, retirements=(begun,)), config, max_retire=1)
    assert [each.kind for each in result.operations][:2] == ["delete", "detach"]
    assert result.operations[0].retirement_id == "r-1"
    result = planned(table(YEAR[10:], retirements=(begun,)), tenants={})
    assert "deletion_unfinished" in codes(result)


def test_a_default_whose_rows_lie_in_one_gap_is_healed() -> None:
    """Maintenance had stopped; nothing is made that overlaps what it becomes."""
    default = Default("logs_rest", 9, GB, 10, day("2026-10-03"), day("2026-12-14"))
    result = planned(table(months("2026-08-01", "2026-09-01"), default=default), retain=None)
    (healed,) = of_kind(result, "heal")
    assert (healed.partition, healed.oid) == ("logs_rest", 9)
    assert (healed.lower, healed.upper) == (day("2026-10-01"), day("2027-01-01"))
    assert partitions(result, "create") == ["logs_p202701", "logs_p202702", "logs_p202703"]
    assert result.operations[0].kind == "heal"


def test_a_heal_looks_a_day_ahead() -> None:
    """Rows of tomorrow come while the DEFAULT is being looked through."""
    default = Default("logs_rest", 9, GB, 10, day("2026-12-03"), day("2026-12-14"))
    state = table(default=default, now=day("2026-12-31") + timedelta(hours=20))
    (healed,) = of_kind(planned(state), "heal")
    assert healed.upper == day("2027-02-01")


def test_a_default_whose_rows_lie_elsewhere_is_told() -> None:
    """Across a partition, or nobody knows where; what its rows do not prevent is made."""
    across = Default("logs_rest", 9, GB, 10, day("2026-10-03"), day("2027-01-14"))
    state = table(months("2026-11-01", "2026-12-01"), default=across)
    result = planned(state)
    assert not of_kind(result, "heal")
    assert "default_rows" in codes(result)
    made = [each.lower for each in of_kind(result, "create")]
    assert min(made) > day("2027-01-14")
    unknown = replace(across, first=None, last=None)
    assert "default_rows" in codes(planned(replace(state, default=unknown)))
    empty = replace(across, rows=0, first=None, last=None)
    assert "default" in codes(planned(replace(state, default=empty)))


def test_what_a_partition_lacks_is_repaired_unless_it_goes() -> None:
    """And told."""
    bare = tuple(replace(each, drift=("guard", "index logs_in_time")) for each in YEAR)
    result = planned(table(bare))
    assert partitions(result, "repair") == [each.name for each in YEAR[8:]]
    assert codes(result).count("drift") == len(YEAR)


def test_the_runway_is_told_before_it_ends() -> None:
    """By half of what is wanted, as it is at the time of the look."""
    short = table(months("2026-10-01", "2027-01-01"), ahead=Span(months=6))
    (finding,) = [each for each in planned(short).findings if each.code == "runway"]
    assert (finding.severity, "2027-02-01" in finding.detail) == ("drift", True)
    assert "runway" not in codes(planned(replace(short, ahead=Span(months=2))))


def test_locks_are_counted() -> None:
    """A few queries must fit, and as many as there are clients ought to."""
    state = table(months("2026-10-01", "2027-03-01"), locks_needed=100, connections=50)
    assert codes(planned(state)) == []
    (note,) = planned(replace(state, connections=65)).findings
    assert (note.code, note.severity) == ("locks", "note")
    (human,) = planned(replace(state, locks_needed=1601)).findings
    assert (human.code, human.severity) == ("locks", "human")


def test_a_lock_timeout_that_is_too_short_is_told() -> None:
    """Autovacuum gives way to whoever waits for longer than deadlock_timeout."""
    state = table(months("2026-10-01", "2027-03-01"))
    assert codes(planned(state, lock_timeout_s=1.0)) == ["lock_timeout"]
    assert codes(planned(state, lock_timeout_s=1.1)) == []


def test_sessions_in_the_way_are_told() -> None:
    """With who they are, and how long they have been there."""
    blocker = Blocker(7, "logs", "analyst", "ada", timedelta(minutes=3), "SELECT count")
    (finding,) = planned(table(months("2026-10-01", "2027-03-01"), blockers=(blocker,))).findings
    assert (finding.code, finding.severity) == ("blocker", "note")
    assert "process 7 (analyst)" in finding.detail
    assert "180 s" in finding.detail


def test_statistics_are_made_once_and_after_changes() -> None:
    """Autovacuum makes none for the table itself."""
    state = table(months("2026-10-01", "2027-03-01"), is_analyzed=False)
    assert [each.kind for each in planned(state).operations] == ["analyze"]
    assert planned(replace(state, is_analyzed=True)).operations == ()


def test_tables_that_are_not_for_a_plan_say_why() -> None:
    """Plain, or somebody else's, or not enabled."""
    plain = replace(table(), is_partitioned=False)
    (finding,) = planned(plain).findings
    assert (finding.code, finding.severity) == ("not_partitioned", "note")
    assert finding.remedy == "auditlog partitions enable logs"
    assert planned(plain).covered_until is None
    result = planned(table(standing_down="pg_partman manages it"))
    assert (result.operations, codes(result)) == ((), ["standing_down"])
    result = planned(table(YEAR, step=None))
    assert (result.operations, codes(result)[-1]) == ((), "no_step")
    assert planned(table(YEAR, step=None), by="month").operations


def test_without_a_view_of_the_holds_nothing_is_planned() -> None:
    """A deletion might be against one."""
    result = planned(table(YEAR, unread={"holds": "GRANT ..."}))
    assert (result.operations, codes(result)) == ((), ["unread"])
    assert planned(table(YEAR, unread={"sizes": "later"})).operations


def test_operations_come_in_order() -> None:
    """What rows of today need first, what takes anything away last."""
    first, second, *rest = YEAR
    default = Default("logs_rest", 9, GB, 10, day("2025-10-03"), day("2025-11-14"))
    state = table(
        [
            replace(first, is_detaching=True),
            second,
            *rest[:-2],
            replace(rest[-2], drift=("guard",)),
        ],
        retirements=(detached(replace(first, oid=5, name="gone"), "archived"),),
        default=default,
        tenants_present={"logs_p202603": frozenset({"a"}), "logs_p202611": frozenset({"a"})},
    )
    config = replace(KEPT, tenants={"a": Span(days=10)}, max_retire=2, retain=Span(months=9))
    kinds = list(dict.fromkeys(each.kind for each in planned(state, config).operations))
    assert kinds == [
        "finalize",
        "heal",
        "create",
        "repair",
        "drop",
        "delete",
        "detach",
        "archive",
        "analyze",
    ]


def test_every_kind_has_its_lock_and_what_it_waits_for() -> None:
    """For `auditlog partitions plan` and the documentation."""
    assert set(LOCKS) == set(WAITS_FOR) == set(get_args(OperationKind))


def test_a_config_takes_nothing_young() -> None:
    """`min_retain` is the longer one of the two."""
    config = TableConfig("logs", retain=Span(days=1), tenants={"a": Span(days=90)})
    assert config.cutoff(NOW) == NOW - timedelta(days=7)
    assert config.tenant_cutoff("a", NOW) == NOW - timedelta(days=90)
    assert TableConfig("logs").cutoff(NOW) is None
