"""Faults of the records: rows that the server refuses, few, many, all, and what takes their rest.

What a row is refused for is in its user; the harness's trigger knows it:
`reduce.…` is taken when its texts are left out, `bury.…` not even then.
"""

from fault_postgres import ROLE
from fault_scene import Scene

REFUSED = (
    "NEW.user_id LIKE 'bury.%' OR (NEW.user_id LIKE 'reduce.%' AND NEW.request_url IS NOT NULL)"
)


def some(number: int) -> str:
    """One row in ten is refused, by turns in either way."""
    return ("reduce", "bury")[number // 10 % 2] if number % 10 == 0 else "u"


def most(number: int) -> str:
    """Nine rows of ten are refused."""
    return "u" if number % 10 == 0 else ("reduce", "bury")[number % 2]


def refused(scene: Scene) -> None:
    """A constraint of the operator's refuses rows, for good."""
    with scene.database.refusing(REFUSED):
        scene.flow(200)


def refused_and_no_place(scene: Scene) -> None:
    """Neither is there a table for dead letters: their file takes them, where there is a spool."""
    with scene.database.changed(
        f"REVOKE INSERT ON logstore.dead_letters FROM {ROLE}",
        f"GRANT INSERT ON logstore.dead_letters TO {ROLE}",
    ):
        refused(scene)


def refused_and_cut(scene: Scene) -> None:
    """While rows are isolated, connections are cut."""
    with scene.database.refusing(REFUSED):
        for _ in range(10):
            scene.flow(20)
            scene.database.hang_up()


def refused_and_killed(scene: Scene) -> None:
    """While rows are isolated, the service is killed."""
    with scene.database.refusing(REFUSED):
        for _ in range(3):
            scene.flow(150)
            scene.service.kill()
            scene.service.start()
