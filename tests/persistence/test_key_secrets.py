"""The form of a secret, and that no other string passes for one."""

from __future__ import annotations

import secrets

from hypothesis import given
from hypothesis import strategies as st

from persistence import key_secrets
from persistence.identifiers import new_id


def test_a_secret_names_its_key_and_no_two_are_alike() -> None:
    key_id = new_id("key")
    made = [key_secrets.make(key_id) for _ in range(50)]
    assert len(set(made)) == 50
    assert {key_secrets.key_id(secret) for secret in made} == {key_id}
    assert not any(key_secrets.is_of_the_first_form(secret) for secret in made)


def test_secrets_of_the_first_version_are_told_apart() -> None:
    first = "sk_" + secrets.token_urlsafe(32)
    assert key_secrets.is_of_the_first_form(first)
    assert key_secrets.key_id(first) is None


@given(at=st.integers(0, 78), letter=st.sampled_from("aZ0_-"))
def test_one_wrong_character_is_found_without_the_database(at: int, letter: str) -> None:
    secret = key_secrets.make("key_01m8r16qp6fybvk7vj5za589bp")
    wrong = secret[:at] + letter + secret[at + 1 :]
    assert len(secret) == 79
    assert wrong == secret or key_secrets.key_id(wrong) is None
