"""The file of tokens: what it may say, and who is found by it."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from predictd.server.access.identity import Identity, Role
from predictd.server.access.tokens import (
    FILE_BYTES_MAX,
    Credential,
    TokenEntry,
    TokensError,
    digest_of,
    entry_text,
    hash_text,
    new_token,
    parse_tokens,
)

HASH = "sha256:" + "ab" * 32
TOKEN = f'[[token]]\nname = "a"\nhash = "{HASH}"\nroles = ["infer"]\n'
CERTIFICATE = '[[certificate]]\nname = "c"\nsan = "x"\nroles = ["infer"]\n'


def test_what_is_written_is_found_by_its_token_alone() -> None:
    first, second = new_token(), new_token()
    entries = [
        TokenEntry(name="first", hash=hash_text(first), roles=(Role.INFER,), models=("res*", "m?")),
        TokenEntry(
            name='a "second" \\ one',
            hash=hash_text(second),
            roles=(Role.OBSERVE, Role.CONTROL),
            expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
    ]
    keyring = parse_tokens("".join(map(entry_text, entries)).encode())
    assert keyring.find(Credential(digest_of(first))) == Identity(
        "first", frozenset({Role.INFER}), ("res*", "m?"), math.inf
    )
    found = keyring.find(Credential(digest_of(second)))
    assert found == Identity(
        'a "second" \\ one', frozenset({Role.OBSERVE, Role.CONTROL}), ("*",), 1893553445.0
    )
    # The same beginning of the digest is not enough, nor is a certificate beside a token that is unknown.
    almost = digest_of(first)[:-1] + b"\0"
    assert keyring.find(Credential(almost, frozenset({"x"}), "first")) is None
    assert keyring.find(Credential()) is None
    assert first != second
    assert len(first) > 40
    assert first not in "".join(map(entry_text, entries))


def test_certificates_are_found_by_the_name_that_the_file_gives() -> None:
    keyring = parse_tokens(
        b'[[certificate]]\nname = "san"\nsan = "spiffe://x/y"\nroles = ["infer"]\n'
        b'[[certificate]]\nname = "cn"\ncommon_name = "job"\nroles = ["control"]\nmodels = ["a"]\n'
    )

    def name(*names: str, common_name: str = "") -> str | None:
        found = keyring.find(Credential(alternative_names=frozenset(names), common_name=common_name))
        return None if found is None else found.name

    assert name("a.example", "spiffe://x/y") == "san"
    assert name(common_name="job") == "cn"
    # One kind of name does not stand for the other, and no name is no name.
    assert (name("job"), name(common_name="spiffe://x/y"), name(), name("")) == (None,) * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("token = 1", "Expected `array`, got `int` - at `$.token`"),
        ("[[tokens]]", "unknown field `tokens`"),
        (TOKEN + 'model = ["a"]', "unknown field `model`"),
        (TOKEN.replace("infer", "admin"), "Invalid enum value 'admin'"),
        (TOKEN.replace('"infer"', ""), "length >= 1"),
        (TOKEN + "models = []", "length >= 1"),
        (TOKEN + 'models = [""]', "length >= 1"),
        (TOKEN.replace(HASH, "predictd_secret"), "token 'a': its hash is not sha256:"),
        (TOKEN.replace(HASH, HASH.upper()), "token 'a': its hash is not sha256:"),
        (TOKEN.replace('"a"', '""'), "the name '' is empty"),
        (TOKEN.replace('"a"', '" a"'), "the name ' a' is empty, or not of printable ASCII"),
        (TOKEN.replace('"a"', '"a\\nb"'), r"the name 'a\nb' is empty, or not of printable ASCII"),
        (TOKEN.replace('"a"', f'"{"a" * 129}"'), "a name has 129 characters and may have 128"),
        (CERTIFICATE.replace('"c"', '"ß"'), "the name 'ß' is empty, or not of printable ASCII"),
        (TOKEN + "expires = 2030-01-01T00:00:00", "token 'a': expires has no time zone"),
        (TOKEN + "expires = 2030-01-01", "Expected `datetime | null`, got `date`"),
        (TOKEN + TOKEN, "two entries have the name 'a'"),
        (TOKEN + TOKEN.replace('"a"', '"b"'), "two entries have the hash"),
        (TOKEN + CERTIFICATE.replace('"c"', '"a"'), "two entries have the name 'a'"),
        (CERTIFICATE.replace("san", "#"), "certificate 'c': give either san or common_name"),
        (CERTIFICATE + 'common_name = "y"', "certificate 'c': give either san or common_name"),
        ("[[token", "not TOML"),
        ("a = " + "[" * 5000, "nested too deeply"),
        (".".join("a" * 100_000) + " = 1", "nested too deeply"),
        ("#" * (FILE_BYTES_MAX + 1), "it has 1048577 bytes and may have 1048576"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, message: str) -> None:
    with pytest.raises(TokensError) as caught:
        parse_tokens(text.encode())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused() -> None:
    with pytest.raises(TokensError, match="not TOML"):
        parse_tokens(b"\xff")
