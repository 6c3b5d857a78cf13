"""Losses that wait to be told: they add up, stay bounded, and can be given back."""

from auditlog.sink.queue.gaps import MAX_ENTRIES, Gap, Gaps


def told(gaps: Gaps) -> dict[tuple[str, str | None], tuple[int, int, int]]:
    """What `take` hands out, by reason and tenant."""
    return {(gap.reason, gap.tenant): (gap.count, gap.first_us, gap.last_us) for gap in gaps.take()}


def filled() -> Gaps:
    """Gaps of as many tenants as are told apart."""
    gaps = Gaps()
    for number in range(MAX_ENTRIES):
        gaps.add(Gap("overflow", f"tenant-{number}", 1, number, number))
    return gaps


def test_losses_of_one_reason_and_tenant_are_one_gap() -> None:
    """With the times of all of them, in whatever order they come."""
    gaps = Gaps()
    gaps.add(Gap("overflow", "red", 2, 50, 60))
    gaps.add(Gap("overflow", "red", 1, -10, 55))
    gaps.add(Gap("overflow", "red", 1, 70, 80))
    assert told(gaps) == {("overflow", "red"): (4, -10, 80)}


def test_reasons_and_tenants_are_told_apart() -> None:
    """And a tenant that is not known is none of the others."""
    gaps = Gaps()
    for reason in ("overflow", "shutdown"):
        for tenant in ("red", "blue", None):
            gaps.add(Gap(reason, tenant, 1, 1, 1))
    assert len(told(gaps)) == 6


def test_one_guess_makes_the_sum_a_guess() -> None:
    """Whichever comes first."""
    for order in ((True, False), (False, True)):
        gaps = Gaps()
        for exact in order:
            gaps.add(Gap("damaged", None, 1, 1, 1, exact))
        assert [gap.exact for gap in gaps.take()] == [False]


def test_what_was_taken_is_gone_until_it_is_given_back() -> None:
    """And adds up with what was lost meanwhile."""
    gaps = Gaps()
    assert not gaps
    gaps.add(Gap("overflow", "red", 2, 10, 20))
    assert gaps
    taken = gaps.take()
    assert not gaps
    assert gaps.take() == []
    gaps.add(Gap("overflow", "red", 1, 30, 30))
    assert [gap.count for gap in taken] == [2], "what was handed out is not touched any more"
    for gap in taken:
        gaps.add(gap)
    assert told(gaps) == {("overflow", "red"): (3, 10, 30)}


def test_a_gap_stays_the_callers() -> None:
    """Neither what is added to it later, nor its tenant, changes under whoever holds it."""
    gap = Gap("overflow", "red", 1, 1, 1)
    gaps = Gaps()
    gaps.add(gap)
    gaps.add(Gap("overflow", "red", 9, 9, 9))
    late = Gap("overflow", "late", 1, 1, 1)
    crowd = filled()
    crowd.add(late)
    assert (gap.count, late.tenant) == (1, "late")
    gap.count = 100
    assert told(gaps) == {("overflow", "red"): (10, 1, 9)}


def test_too_many_tenants_add_up_under_none() -> None:
    """No record is forgotten, and memory is bounded; those that are known are told apart still."""
    gaps = filled()
    for number in range(500):
        gaps.add(Gap("overflow", f"late-{number}", 2, -number, number))
    gaps.add(Gap("overflow", "tenant-7", 5, 7, 7))
    gaps.add(Gap("shutdown", "late", 3, 1, 1))
    found = told(gaps)
    assert found["overflow", None] == (1000, -499, 499)
    assert found["overflow", "tenant-7"] == (6, 7, 7)
    assert found["shutdown", None] == (3, 1, 1)
    assert len(found) == MAX_ENTRIES + 2
    assert sum(count for count, _, _ in found.values()) == MAX_ENTRIES + 1000 + 5 + 3


def test_being_full_ends_when_gaps_are_taken() -> None:
    """Tenants have names again."""
    gaps = filled()
    gaps.take()
    gaps.add(Gap("overflow", "late", 1, 1, 1))
    assert told(gaps) == {("overflow", "late"): (1, 1, 1)}
