"""Which names count as secret, in every spelling, and which do not."""

import pytest

from auditlog.capture.redaction.secret_names import (
    HEADER_NAMES,
    INFIXES,
    INNOCENT_NAMES,
    PARAMETER_NAMES,
    SECRET,
    WHOLE_NAMES,
    SecretNames,
    decode_fully,
    normalise,
)
from auditlog.capture.remembered import MAX_KEYS
from auditlog.errors import SettingsError

NAMES = SecretNames()

SECRET_EVERYWHERE = [
    "authorization",
    "Proxy-Authorization",
    "grpcgateway-authorization",
    "cookie",
    "grpcgateway-cookie",
    "set-cookie",
    "X-Api-Key",
    "apiKey",
    "api_key",
    "APIKEY",
    "x-auth-token",
    "X-CSRF-Token",
    "access_token",
    "refreshToken",
    "client_secret",
    "newPassword",
    "passwd",
    "pwd",
    "credentials",
    "session_id",
    "JSESSIONID",
    "PHPSESSID",
    "dpop",
    "x-amz-security-token",
    "x-goog-iam-authority-selector",
    "X-Amz-Signature",
    "X-Goog-Credential",
    "sig",
    "ocp-apim-subscription-key",
    "x-functions-key",
    "signingKey",
    "ENCRYPTION_KEY",
    "ssh key",
    "a.private.key",
    "user[pin]",
    "user.pin",
    "tokens[0]",
    "password_",
    "pass\u200bword",
]
INNOCENT_EVERYWHERE = [
    "traceparent",
    "tracestate",
    "x-request-id",
    "content-length",
    "user-agent",
    "idempotency-key",
    "Idempotency-Key",
    "sec-websocket-key",
    "surrogate-key",
    "primary_key",
    "publicKey",
    "sort_key",
    "keyboard",
    "monkey",
    "turkey",
    "hockey",
    "keys",
    "tokenizer",
    "tokenization",
    "token_type",
    "max_tokens",
    "usage.total_tokens",
    "secretary",
    "compass",
    "passenger",
    "spinning",
    "author",
    "authority",
    "design",
    "assign",
    "country_code",
    "zip",
    "state",
    "",
    "0",
]


@pytest.mark.parametrize("name", SECRET_EVERYWHERE)
def test_secret_names_are_secret_as_header_parameter_and_field(name: str) -> None:
    """Spelling does not matter, nor where the name stands."""
    tables = (NAMES.headers, NAMES.parameters, NAMES.fields)
    assert [table[name] & SECRET for table in tables] == [SECRET] * 3


@pytest.mark.parametrize("name", [name for name in INNOCENT_EVERYWHERE if name])
def test_innocent_names_are_shown(name: str) -> None:
    """A name that only resembles a secret's one hides nothing."""
    tables = (NAMES.headers, NAMES.parameters, NAMES.fields)
    assert [table[name] & SECRET for table in tables] == [0] * 3


@pytest.mark.parametrize("name", PARAMETER_NAMES)
def test_oauth_and_session_names_are_secret_in_parameters_only(name: str) -> None:
    """In JSON `code` is an error's or a country's."""
    assert NAMES.parameters[name] & SECRET
    assert not NAMES.fields[name]


@pytest.mark.parametrize("name", ["%70assword", "%2570assword", "pass+word", "PASS%57ORD", "%"])
def test_encoded_parameter_names_are_judged_decoded(name: str) -> None:
    """However often a name is percent-encoded, the name is what the server will see."""
    assert bool(NAMES.parameters[name]) == (name != "%") or name == "%"
    assert NAMES.parameters["%2525252525252570in"] & SECRET, "too deep to judge"


def test_value_without_name_is_secret() -> None:
    """What has no name cannot be judged."""
    assert NAMES.parameters[""] & SECRET


@pytest.mark.parametrize("name", [*INFIXES, *WHOLE_NAMES])
def test_every_listed_name_works(name: str) -> None:
    """The list is what the code goes by."""
    assert NAMES.fields[name]


@pytest.mark.parametrize("name", HEADER_NAMES)
def test_every_listed_header_name_works(name: str) -> None:
    """The list is what the code goes by."""
    assert NAMES.headers[name]


@pytest.mark.parametrize("name", sorted(INNOCENT_NAMES))
def test_every_exception_is_one(name: str) -> None:
    """An exception that no rule needs would only mislead."""
    assert not NAMES.fields[name]
    assert NAMES.fields["x" + name + "x"], f"{name} is innocent without an exception"


def test_additional_names_are_secret_in_every_spelling() -> None:
    """Users write a name as they like, clients too."""
    names = SecretNames(["Tax-Number", "пароль"])
    assert names.fields["taxNumber"]
    assert names.parameters["tax_number"]
    assert names.headers["x-tax-number"]
    assert names.fields["syntax_number"] == 0, "whole names only"
    assert names.fields["ПАРОЛЬ"]


def test_additional_name_without_letters_is_refused() -> None:
    """It would be secret under no name, or under every empty one."""
    with pytest.raises(SettingsError, match="no letter or digit"):
        SecretNames(["--"])


def test_verdicts_are_bounded() -> None:
    """Clients choose the names; they must not fill the memory."""
    names = SecretNames()
    for number in range(MAX_KEYS + 10):
        assert names.parameters[f"name{number}"] == 0
    assert len(names.parameters) <= MAX_KEYS
    assert names.parameters["x" * 1000] == 0
    assert "x" * 1000 not in names.parameters


def test_name_too_long_to_judge_is_secret() -> None:
    """Nobody names a field with more than a thousand characters."""
    assert NAMES.parameters["x" * 1025] & NAMES.fields["x" * 1025] & NAMES.headers["x" * 1025]


def test_normalise_brings_spellings_together() -> None:
    """One spelling is left."""
    assert {normalise(name) for name in ("X-Api-Key", "xApiKey", "x_api.key")} == {"xapikey"}


def test_decode_fully_tells_when_it_gave_up() -> None:
    """Five times encoded is nobody's mistake."""
    assert decode_fully("a%2520b") == ("a b", True)
    assert decode_fully("%2525252525252541")[1] is False
