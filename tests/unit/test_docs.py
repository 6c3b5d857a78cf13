"""What the library offers is documented: settings, keys, metrics, log lines, commands."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from auditlog.settings import Settings
from auditlog.sink.queue.stats import LossReason

ROOT = Path(__file__).parents[2]
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "src/auditlog").rglob("*.py")))
DOCS = ROOT / "docs"
WRITERS = "\n".join(
    path.read_text()
    for folder in ("capture", "sink", "quota")
    for path in sorted((ROOT / "src/auditlog" / folder).rglob("*.py"))
)
# A key that is put together, such as f"rpc.response.metadata.{name}", counts by its beginning.
METADATA_KEY = re.compile(
    r'"((?:audit|http|url|network|client|error|websocket|rpc|graphql|otel|code|exception)'
    r'\.[a-z_.]+|trace_id|span_id)["{]'
)

# Event types, which look like keys.
QUOTA_DEEDS = {"audit.quota.removed", "audit.quota.set"}
# Their names look like keys, and are none. https://asgi.readthedocs.io/en/latest/specs/www.html
ASGI_MESSAGES = {
    "http.disconnect",
    "http.request",
    "http.response.body",
    "http.response.pathsend",
    "http.response.start",
    "http.response.trailers",
    "http.response.zerocopysend",
    "websocket.accept",
    "websocket.close",
    "websocket.disconnect",
    "websocket.http.response",
    "websocket.http.response.body",
    "websocket.http.response.start",
    "websocket.receive",
    "websocket.send",
}


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_setting_is_documented(name: str) -> None:
    """Every setting stands in docs/settings.md."""
    assert f"`{name}`" in (DOCS / "settings.md").read_text()


def test_documented_settings_exist() -> None:
    """docs/settings.md lists nothing that was removed."""
    first_cells = re.findall(r"^\| (`.*?) \|", (DOCS / "settings.md").read_text(), re.MULTILINE)
    listed = {name for cell in first_cells for name in re.findall(r"`([a-z_]+)`", cell)}
    assert listed == {field.name for field in fields(Settings)}


def test_metadata_keys_are_documented() -> None:
    """Every metadata key that a capture or the encoder writes stands in docs/record.md."""
    written = set(METADATA_KEY.findall(WRITERS)) - ASGI_MESSAGES - QUOTA_DEEDS
    documented = set(METADATA_KEY.findall(_quoted((DOCS / "record.md").read_text())))
    assert documented == written


def test_rows_about_maintenance_are_documented() -> None:
    """Every deed that leaves a row in the trail stands in docs/partitions.md."""
    deeds = r'"audit\.((?:partition(?:ing)?|rows|archive)\.[a-z]+)"'
    written = set(re.findall(deeds, SOURCES))
    text = (DOCS / "partitions.md").read_text()
    assert len(written) > 5
    assert [deed for deed in sorted(written) if f".{deed.partition('.')[2]}`" not in text] == []


def test_rows_about_quotas_are_documented() -> None:
    """Every deed of `auditlog quota` stands in docs/quotas.md."""
    assert set(re.findall(r'"(audit\.quota\.[a-z]+)"', SOURCES)) == QUOTA_DEEDS
    text = (DOCS / "quotas.md").read_text()
    assert [deed for deed in sorted(QUOTA_DEEDS) if f"`{deed}`" not in text] == []


@pytest.mark.parametrize("reason", list(LossReason))
def test_loss_reason_is_documented(reason: LossReason) -> None:
    """Whoever sees a reason in a metric finds it in docs/operations.md."""
    assert f"`{reason.value}`" in (DOCS / "operations.md").read_text()


def test_log_lines_are_documented() -> None:
    """Every reason that is logged has its line in docs/operations.md."""
    reasons = set(re.findall(r'"(auditlog\.[a-z]+_[a-z]+)"', SOURCES))
    assert reasons, "the pattern finds nothing any more"
    text = (DOCS / "operations.md").read_text()
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in text] == []


def test_metrics_are_documented() -> None:
    """Every metric's name stands in docs/operations.md."""
    names = set(re.findall(r'"(auditlog_[a-z_]+)"', SOURCES))
    text = (DOCS / "operations.md").read_text()
    assert names
    assert [name for name in sorted(names) if name not in text] == []


@pytest.mark.parametrize(
    "path", sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")]), ids=lambda p: p.name
)
def test_links_lead_somewhere(path: Path) -> None:
    """Relative links in the documents point at files that exist."""
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def _quoted(text: str) -> str:
    return re.sub(r"`([^`]+)`", r'"\1"', text)
