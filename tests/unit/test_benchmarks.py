"""Each benchmark runs, checks its own result, and prints its table; the figures are not judged."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmarks import __main__ as command
from benchmarks import (
    capture,
    durability_commit,
    durability_outage,
    durability_replay,
    durability_submit,
    events,
    memory,
    report,
    serving,
    sink,
)
from benchmarks.database import Server
from benchmarks.isolated import Turn, isolated
from benchmarks.report import Aim, Row, Table
from benchmarks.rounds import added, interleave, interval, judge
from benchmarks.rpc import inprocess, served
from benchmarks.rpc.contestants import BARE, COMPETITORS, OURS

from databases import Server as SharedServer


@pytest.fixture(scope="module")
def bench_server(any_server: SharedServer) -> Iterator[Server]:
    server = Server(any_server.admin_dsn, shutil.which("psql"))
    yield server
    server.close()


def names(table: Table) -> list[str]:
    """The rows' names, after a look at whether they fit their columns."""
    assert table.markdown().startswith(f"### {table.title}\n")
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}
    return [row.name for row in table.rows]


def test_capture_compares_ours_with_bare_and_with_the_competitors() -> None:
    """Ours and its three parts, and a line for each competitor, installed or not."""
    (table,) = capture.run(capture.Sizes(requests=5, rounds=1))
    assert names(table) == [
        capture.BARE,
        capture.OURS,
        "· of that, capture",
        "· of that, encode",
        "· of that, queue",
        *(each.name for each in capture.MIDDLEWARES),
    ]


def test_sink_stores_every_row_by_every_way(bench_server: Server) -> None:
    """Each way is checked for its rows in the run itself."""
    (table,) = sink.run(sink.Sizes(rows=40, rounds=1), bench_server)
    assert {sink.OURS, sink.LIMIT, sink.EXECUTEMANY, sink.ASYNCPG} <= set(names(table))


def test_uvicorn_stores_a_row_for_every_request(bench_server: Server) -> None:
    """Sent = stored, and nothing dropped, is checked in the run itself."""
    sizes = serving.Sizes(seconds=0.2, rounds=1, rate=100, connections=2)
    saturated, steady = serving.run(sizes, bench_server)
    competitors = [each.name for each in capture.MIDDLEWARES]
    assert names(saturated) == [serving.BARE, serving.AUDITED, *competitors]
    assert names(steady) == [serving.BARE, serving.AUDITED]


def test_grpc_stores_a_row_for_every_call(bench_server: Server) -> None:
    """Sent = seen by each interceptor, and sent = stored by ours, is checked in the run itself."""
    sizes = served.Sizes(calls=20, rounds=1, threaded_rounds=1, clients=(1, 2))
    aio, threaded = served.run(sizes, bench_server)
    everybody = [BARE, OURS, *(each.name for each in COMPETITORS)]
    assert names(aio) == names(threaded) == everybody
    assert [len(row.aims) for row in threaded.rows] == [0, 2, 0, 0]


def test_grpc_calls_and_messages_are_timed_in_process() -> None:
    """Who has no interceptor for a server says so; the handlers that were made are really used."""
    (table,) = inprocess.run(inprocess.Sizes(calls=5, messages=50, rounds=1))
    assert names(table) == [BARE, OURS, *(each.name for each in COMPETITORS)]
    lacking = [cell == "not to be had" for cell in table.rows[-1].cells]
    # It has none for grpc.aio; and it comes with the extra `bench` only.
    missing = find_spec("py_grpc_prometheus") is None
    assert lacking == [True, True, True, missing, missing]


def test_events_are_all_recorded() -> None:
    """Each way is checked for its rows in the run itself."""
    (table,) = events.run(events.Sizes(events=5, rounds=1))
    assert names(table) == list(events.NAMES)


def test_memory_counts_what_a_full_queue_takes() -> None:
    """Both bounds, and the objects beside them."""
    (table,) = memory.run(memory.Sizes(rows=200, max_bytes=1 << 16, rounds=1))
    assert names(table) == ["auditlog, 200 rows", "auditlog, 0.0625 MiB", "records as objects, 200"]


def test_index_cost_holds_the_shipped_indexes_against_plain_ones(bench_server: Server) -> None:
    """The benchmark has names of its own, which the table looks for."""
    table = command.index_cost_table(bench_server, rows=10_000)
    assert {command.SHIPPED, command.PLAIN} < set(names(table))
    assert [row.name for row in table.rows if row.aims] == [command.SHIPPED]


def test_tables_show_aims_and_whether_they_were_met() -> None:
    """One line of the page, to the letter."""
    row = Row("ours", ("7.5",), (Aim("≤ 9 µs", met=True), Aim("≥ 12 ×", met=False)))
    table = Table("speed", ("µs",), [row], ("a note",))
    assert table.markdown() == (
        "### speed\n\n"
        "|      |  µs | aim            | met     |\n"
        "| ---- | --: | -------------- | ------- |\n"
        "| ours | 7.5 | ≤ 9 µs; ≥ 12 × | yes; no |\n\n"
        "- a note\n"
    )


@pytest.mark.parametrize(
    ("audited", "bare", "verdict"),
    [
        ([1.5, 1.6, 1.7], [1.0, 1.1, 1.2], True),
        ([3.5, 3.6, 3.7], [1.0, 1.1, 1.2], False),
        ([1.0, 1.0, 1.0], [1.0, 9.0, 4.0], None),
        ([40.0, 50.0, 60.0], [1.0, 9.0, 4.0], None),
        ([1.0], [1.0], None),
    ],
)
def test_no_verdict_on_latency_when_bare_differs_from_itself_by_more_than_the_aim(
    audited: list[float], bare: list[float], verdict: bool | None
) -> None:
    """Noise must not pass for a success, nor for a failure."""
    assert serving.within(audited, bare, aim=1.0) is verdict
    word = {True: "yes", False: "no", None: "unclear"}[verdict]
    assert f"| {word}" in Table("t", (), [Row("x", (), (Aim("aim", verdict),))]).markdown()


def test_a_bound_within_the_interval_is_unclear() -> None:
    """And from a handful of rounds nothing follows, whatever they say."""
    lies = interval(float(number) for number in range(1, 101))
    assert lies == (41.0, 60.0)
    assert judge(lies, at_most=60.0) is True
    assert judge(lies, at_most=50.0) is None
    assert judge(lies, at_most=40.0) is False
    assert judge(lies, at_least=41.0) is True
    assert judge(lies, at_least=61.0) is False
    assert judge(interval([1.0] * 5), at_most=100.0) is None


def test_write_replaces_only_the_tables_that_it_has(tmp_path: Path) -> None:
    """What people wrote around the figures stays, and so do the figures of other runs."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}\n{report.END}\nafter\n")
    one, other = (report.Table(title, (), [report.Row("row", ())]) for title in ("one", "other"))
    report.write(page, [one, other], "First.")
    report.write(page, [other], "Second.")
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n### one\n")
    assert text.endswith(f"\n\nSecond.\n{report.END}\nafter\n")
    assert (text.count("### "), text.count("First."), text.count("Second.")) == (2, 1, 1)


def test_write_refuses_a_page_without_markers(tmp_path: Path) -> None:
    """Figures must not be appended to some other text."""
    page = tmp_path / "benchmarks.md"
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="must hold"):
        report.write(page, [], "")
    assert page.read_text() == "no markers\n"


def test_the_page_of_the_documentation_has_the_markers() -> None:
    """`--write` finds its place."""
    text = command.PAGE.read_text("utf-8")
    assert 0 <= text.find(report.BEGIN) < text.find(report.END)


def test_an_unknown_benchmark_is_refused_with_the_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit) as exit_info:
        command.main(["nonsense"])
    assert exit_info.value.code == 2
    complaint = capsys.readouterr().err
    assert [name for name in ("nonsense", *command.BENCHMARKS) if name not in complaint] == []


async def test_contestants_take_turns_and_rounds_begin_with_another() -> None:
    """So that none always has the place after the noisiest."""
    order: list[str] = []

    def contestant(name: str, figure: float) -> Turn:
        async def turn() -> float:
            order.append(name)
            return figure

        return turn

    contestants = {"a": contestant("a", 3.0), "b": contestant("b", 1.0)}
    results = await interleave("order", contestants, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert added(results["a"], results["b"]) == 2.0


async def test_a_contestant_that_fails_ends_the_benchmark() -> None:
    """Whoever did nothing must not win."""
    with (
        pytest.raises(RuntimeError, match="'idle' has failed"),
        isolated(idle, ["idle"]) as contestants,
    ):
        assert await contestants["idle"]() == 1.0


@asynccontextmanager
async def idle(name: str) -> AsyncIterator[Turn]:
    """A contestant whose check at the end fails."""

    async def turn() -> float:
        return 1.0

    yield turn
    raise AssertionError(name)


def test_spool_compares_what_it_adds_with_the_limit_and_with_other_stores(
    bench_server: Server,
) -> None:
    """Each way is checked for its records in the run itself."""
    sizes = durability_submit.Sizes(records=5, rounds=1, committed=5, committed_rounds=1)
    (table,) = durability_submit.run(sizes, bench_server)
    assert names(table) == list(durability_submit.NAMES)
    assert [len(row.aims) for row in table.rows] == [0, 2, 0, 2, 0, 0, 0]


def test_commit_has_both_rows_of_every_request(bench_server: Server) -> None:
    """Sent = stored, and received before handled, is checked in the run itself."""
    sizes = durability_commit.Sizes(seconds=0.2, rounds=1, connections=2)
    (table,) = durability_commit.run(sizes, bench_server)
    assert names(table) == list(durability_commit.NAMES)


def test_replay_stores_all_that_a_dead_process_left(bench_server: Server) -> None:
    """Each way is checked for its rows in the run itself."""
    (table,) = durability_replay.run(durability_replay.Sizes(rows=40, rounds=1), bench_server)
    assert {durability_replay.REPLAY, durability_replay.COPY} < set(names(table))


def test_outage_tells_of_every_request(bench_server: Server) -> None:
    """Sent = stored and lost is checked in the run itself; here nothing is lost either."""
    sizes = durability_outage.Sizes(before=1, outage=0.5, after=2, warm_up=0.2)
    (table,) = durability_outage.run(sizes, bench_server)
    assert names(table) == [durability_outage.NO_AUDIT, *durability_outage.MODES]
    assert [row.aims[1].met for row in table.rows[1:]] == [True, True]
