"""One trial: a database, a proxy, a service, traffic, a fault in the midst of it, the verdict."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_client import Client, until
from fault_disk import MOUNTED, small_disk
from fault_journal import Request, read_journal
from fault_judge import COMMIT, MEMORY, SPOOL, Verdict, judge
from fault_postgres import Database, Postgres
from fault_process import Service
from fault_proxy import StageProxy
from fault_remote import RemoteClient
from fault_trail import read_trail

MODES = (MEMORY, SPOOL, COMMIT)
SMALL_BYTES = 300_000
SLOWEST_S = 20.0
"""No answer takes longer, whatever is the matter: sanity, and no measure."""
SETTINGS = {
    "batch_age_s": 0.05,
    "retry_min_s": 0.01,
    "retry_max_s": 0.2,
    "connect_timeout_s": 2,
    "statement_timeout_s": 2,
    "commit_timeout_s": 0.5,
    "drain_timeout_s": 20,
}


@dataclass
class Scene:
    """What a fault works on."""

    mode: str
    seed: int
    random: random.Random
    folder: Path
    postgres: Postgres
    database: Database
    proxy: StageProxy
    service: Service
    client: Client | RemoteClient
    limit: str = ""
    """What limits the disk of the spool, where something does."""
    volatile_s: float | None = None
    """For how long a kill may take records along; None: as the mode has it."""

    @property
    def spool(self) -> Path:
        """The folder of the service's spool."""
        return self.folder / "spool"

    def flow(self, answers: int = 20) -> None:
        """See requests answered, whatever the fault of the moment."""
        self.client.flow(answers)


Fault = Callable[[Scene], None]


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    fault: str
    mode: str
    seed: int
    verdict: Verdict
    seconds: float
    slowest_s: float
    said: str
    """The end of what the service wrote."""
    reconcile: str = ""
    """What `auditlog reconcile` says where it does not find that all is accounted for."""

    def check(self, *, lossless: bool = False) -> None:
        """Fail unless every record is accounted for, once, and requests were answered.

        Args:
            lossless: May nothing be missing, for whatever reason?
        """
        name = f"{self.fault}, {self.mode}, seed {self.seed}"
        assert self.verdict.acknowledged > 0, f"{name}: nothing was acknowledged\n{self.said}"
        assert self.verdict.good, f"{name}: {self.verdict}\n{self.said}"
        assert not (lossless and self.verdict.missing), f"{name}: {self.verdict}\n{self.said}"
        assert not self.reconcile, f"{name}: {self.verdict}\n{self.reconcile}"
        assert self.slowest_s < SLOWEST_S, f"{name}: an answer took {self.slowest_s:.1f} s"


@contextmanager
def staged(
    postgres: Postgres,
    mode: str,
    seed: int,
    *,
    kind: str = "asgi",
    options: str = "",
    clock: bool = False,
    spool: bool = False,
    disk: bool = False,
    rate: float = 500,
    user: Callable[[int], str] = lambda _: "u",
    **settings: Any,
) -> Iterator[Scene]:
    """Set a scene, in which requests flow already.

    Args:
        postgres: Where its database is made.
        mode: The durability.
        seed: Of everything that is left to chance.
        kind: Of the service.
        options: More for the service's command line.
        clock: Can the service's clock be shifted, by the file `clock` in its folder?
        spool: Has it a spool, whatever the mode?
        disk: Is the spool on a small disk of its own, or limited where none can be mounted?
        rate: Requests a second.
        user: Gives the user of a request by its number.
        settings: Of the log; None leaves one out.
    """
    with (
        tempfile.TemporaryDirectory(prefix="al-fault-", ignore_cleanup_errors=True) as name,
        ExitStack() as disks,
        postgres.database() as database,
        StageProxy(database.service_dsn) as proxy,
    ):
        folder = Path(name)
        limit = disks.enter_context(small_disk(folder / "spool")) if disk else ""
        if limit and limit != MOUNTED:
            settings[limit] = SMALL_BYTES
        environment = environment_of(mode, proxy.dsn, folder, spool=spool, **settings)
        shift = str(folder / "clock") if clock else ""
        journal, run = folder / "journal", f"s{seed}"
        chance = random.Random(seed)  # noqa: S311  # a scenario, not a secret
        with (
            Service(kind, folder, environment, options, shift) as service,
            _client(service, journal, run, rate=rate, seed=seed, user=user) as client,
        ):
            client.flow(10)
            yield Scene(
                mode, seed, chance, folder, postgres, database, proxy, service, client, limit
            )


def _client(
    service: Service, journal: Path, run: str, *, user: Callable[[int], str], **options: Any
) -> Client | RemoteClient:
    if service.kind.startswith("grpc"):
        return RemoteClient(service.port, journal, run, kind=service.kind, **options)
    return Client(service.port, journal, run, user=user, **options)


def conclude(scene: Scene) -> Verdict:
    """End the traffic, let everything be shipped that can be, and judge."""
    scene.client.flow(20)
    scene.client.stop()
    scene.service.stop()
    ship_the_rest(scene)
    return verdict_of(scene)


def verdict_of(scene: Scene) -> Verdict:
    """Judge what is in the database."""
    return judge(
        requests_of(scene),
        read_trail(scene.database.dsn, scene.spool),
        scene.mode,
        kills=scene.service.kills,
        volatile_s=scene.volatile_s,
        # With a spool, a loss at the end is told there.
        told=None if scene.spool.exists() else scene.service.told(),
    )


def requests_of(scene: Scene) -> dict[str, Request]:
    """Read the journals of all clients."""
    journals = map(read_journal, sorted(scene.folder.glob("journal*")))
    return {identity: each for journal in journals for identity, each in journal.items()}


def ship_the_rest(scene: Scene) -> None:
    """Let a fresh service, or the command, write what the last one has left in the spool."""
    if is_spool_empty(scene):
        return
    if scene.random.random() < 1 / 2:
        scene.service.ship()
        assert is_spool_empty(scene), "not everything was shipped"
        return
    scene.service.start()
    until(lambda: is_spool_empty(scene), "everything is shipped")
    scene.service.stop()


def is_spool_empty(scene: Scene) -> bool:
    """Whether no file with records is left; the owner of one removes it when all are settled."""
    return not any(scene.spool.rglob("*.segment"))


def tried(
    name: str,
    fault: Fault,
    postgres: Postgres,
    mode: str,
    seed: int,
    *,
    reconcile: bool = False,
    **options: Any,
) -> Result:
    """Set a scene, do the fault in it, and judge.

    Args:
        name: What it is called in the table.
        fault: What is done.
        postgres: For `staged`.
        mode: Likewise.
        seed: Likewise.
        reconcile: Is `auditlog reconcile` asked as well, which has to agree?
        options: For `staged`.
    """
    started = time.monotonic()
    with staged(postgres, mode, seed, **options) as scene:
        fault(scene)
        verdict = conclude(scene)
        slowest = max((each.latency_s for each in requests_of(scene).values()), default=0.0)
        said = scene.service.said()
        name += f" ({scene.limit})" if scene.limit else ""
        objection = reconcile_objects(scene) if reconcile else ""
    seconds = time.monotonic() - started
    return Result(name, mode, seed, verdict, seconds, slowest, said, objection)


def reconcile_objects(scene: Scene) -> str:
    """Return what `auditlog reconcile` says, unless it finds that all is accounted for."""
    # As the owner: the service's role may not read what it writes.
    done = scene.service.command("reconcile", AUDITLOG_DSN=scene.database.dsn)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def environment_of(
    mode: str, dsn: str, folder: Path, *, spool: bool = False, **settings: Any
) -> dict[str, str]:
    """Return the environment of a service that logs with these settings."""
    known: dict[str, Any] = {"dsn": dsn, "durability": mode, **SETTINGS}
    if mode == SPOOL or spool:
        known["spool_dir"] = folder / "spool"
    values = known | settings
    return {
        f"AUDITLOG_{name.upper()}": str(value)
        for name, value in values.items()
        if value is not None
    }
