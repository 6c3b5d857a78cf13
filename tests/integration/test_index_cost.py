import psycopg
from benchmarks.index_cost import run


def test_benchmark_of_the_indexes_runs_and_cleans_up(any_dsn: str) -> None:
    """Four sets of indexes on the same rows, each with its cost; nothing stays behind."""
    results = run(any_dsn, rows=10_000)
    assert [name for name, _, _ in results] == [
        "shipped indexes",
        "six plain B-trees on the same columns",
        "six plain B-trees of the ancestor",
        "primary key only",
    ]
    assert all(cost > 0 for _, cost, _ in results)
    with psycopg.connect(any_dsn) as conn:
        assert conn.execute("SELECT to_regnamespace('index_cost')").fetchone() == (None,)
        assert conn.execute("SELECT count(*) FROM logstore.logs").fetchone() == (0,)
