"""`Idempotency-Key`: a creating request that is sent again is answered as it was the first time.

An endpoint takes `once: OnceOf`. One that makes its object from a JSON body says

    return once.create(Webhook, request, make, collection="/v1/webhooks")

where `make(session)` makes it in the transaction it is given. One with work of its own takes
`once.of(...)` of what was sent and calls `recall` first and `remember` last, both within its
transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from persistence import idempotency
from persistence.database import Database
from persistence.idempotency import Answer, KeyedRequest, KeyReused
from service.context import BackendOf, CallerOf
from service.problems import ProblemError
from service.sealed_secrets import seal, unseal

R = TypeVar("R", bound=BaseModel)

OPERATION_LENGTH = 200
REPLAYED = "Idempotent-Replayed"
"""Header of an answer that was given before."""


class IdempotencyKeyReused(ProblemError):
    """The key belongs to another request."""

    status = 409
    type = "idempotency-key-reused"
    title = "The idempotency key was used for another request"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"This `Idempotency-Key` came with a `{operation}` that differs from this request.",
            hint="Send the same request as then, or choose a new key.",
        )


class Ledger(Protocol):
    """What a service keeps the answer of one request in."""

    def find(self) -> Answer | None:
        """The first answer if it is there already: saves work before the transaction."""

    def recall(self, session: Session) -> Answer | None:
        """The first answer; None when the work is to be done, in this transaction, in which
        nothing is locked yet."""

    def remember(self, session: Session, answer: Answer) -> None:
        """Keep the answer with what it tells of, in the transaction of `recall`, and send it."""

    def send(self, answer: Answer) -> None:
        """Answer with status and headers of an answer that is kept elsewhere."""


class Once:
    """The key of one request, if it has one.

    Args:
        tenant_id: whose it is.
        operation: method and path.
        key: without one every request is the first.
        response: where status and headers of the answer go.
        database: for `create`.
        api_key: the secret that the request came with; it seals secrets of answers.
    """

    def __init__(
        self, tenant_id: str, operation: str, key: str | None, response: Response,
        database: Database, *, api_key: bytes = b"",
    ) -> None:  # fmt: skip
        self.key = key
        self._api_key = api_key
        self._tenant_id = tenant_id
        self._operation = operation
        self._response = response
        self._database = database

    def of(self, fingerprint: str) -> Ledger:
        """The ledger, once it is known what was sent.

        Args:
            fingerprint: SHA-256 of it; `fingerprint` and `file_fingerprint` make one.
        """
        keyed = None
        if self.key is not None:
            keyed = KeyedRequest(self._tenant_id, self.key, self._operation, fingerprint)
        return _KeyedLedger(keyed, self._response, self._database)

    def create_with_secret(
        self,
        kind: type[R],
        request: BaseModel,
        make: Callable[[Session], R],
        *,
        collection: str,
    ) -> R:
        """`create` for what has a `secret`, which is kept sealed: the answer is given again to
        the API key that got it first, and the request of another one is another request."""
        by = hashlib.sha256(self._api_key).hexdigest()
        ledger = self.of(fingerprint(request, by))
        with self._database.session() as session:
            answer = ledger.recall(session)
            if answer is not None:
                secret = unseal(answer.body["secret"], self._api_key, str(self.key))
                return kind.model_validate({**answer.body, "secret": secret})
            made = make(session)
            body = made.model_dump(mode="json")
            if self.key is not None:
                body["secret"] = seal(body["secret"], self._api_key, self.key)
            location = {"Location": f"{collection}/{body['id']}"}
            ledger.remember(session, Answer(201, location, body))
        return made

    def create(
        self,
        kind: type[R],
        request: BaseModel,
        make: Callable[[Session], R],
        *,
        collection: str,
        status: int = 201,
    ) -> R:
        """Make an object once, and answer with it.

        Args:
            kind: its type.
            request: the body it is made from.
            make: makes it in the given transaction.
            collection: the path it lives under by its id.
            status: of the answer.
        """
        ledger = self.of(fingerprint(request))
        with self._database.session() as session:
            answer = ledger.recall(session)
            if answer is not None:
                return kind.model_validate(answer.body)
            made = make(session)
            body = made.model_dump(mode="json")
            location = {"Location": f"{collection}/{body['id']}"}
            ledger.remember(session, Answer(status, location, body))
        return made


class _KeyedLedger:
    def __init__(self, keyed: KeyedRequest | None, response: Response, database: Database) -> None:
        self._keyed = keyed
        self._response = response
        self._database = database

    def find(self) -> Answer | None:
        with self._database.session(read_only=True) as session:
            return self._ask(idempotency.find, session)

    def recall(self, session: Session) -> Answer | None:
        return self._ask(idempotency.recall, session)

    def remember(self, session: Session, answer: Answer) -> None:
        if self._keyed is not None:
            idempotency.remember(session, self._keyed, answer)
        self.send(answer)

    def _ask(
        self, ask: Callable[[Session, KeyedRequest], Answer | None], session: Session
    ) -> Answer | None:
        if self._keyed is None:
            return None
        try:
            answer = ask(session, self._keyed)
        except KeyReused as error:
            raise IdempotencyKeyReused(error.operation) from error
        if answer is not None:
            self.send(answer)
            self._response.headers[REPLAYED] = "true"
        return answer

    def send(self, answer: Answer) -> None:
        self._response.status_code = answer.status
        self._response.headers.update(answer.headers)


def fingerprint(request: BaseModel, *parts: str) -> str:
    """SHA-256 of a JSON body, whatever the order of its keys, and of what else was sent."""
    content = json.dumps([request.model_dump(mode="json"), *parts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def file_fingerprint(sha256: str, name: str) -> str:
    """The same of an uploaded file: its content and its name."""
    return hashlib.sha256(f"{sha256} {name}".encode()).hexdigest()


def _once(
    request: Request,
    response: Response,
    caller: CallerOf,
    backend: BackendOf,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="Chosen by the caller, such as a UUID. The same request with the same key "
            "is carried out once and answered the same way again, with `Idempotent-Replayed: "
            "true`; the key with another request is refused (409).",
        ),
    ] = None,
) -> Once:
    operation = f"{request.method} {request.url.path}"[:OPERATION_LENGTH]
    if idempotency_key is not None:
        with backend.database.session(read_only=True) as session:
            known = idempotency.operation_of(session, caller.tenant_id, idempotency_key)
        if known not in (None, operation):
            raise IdempotencyKeyReused(str(known))  # before a body of gigabytes is read
    api_key = request.headers["authorization"].partition(" ")[2].strip().encode("latin-1")
    return Once(
        caller.tenant_id, operation, idempotency_key, response, backend.database, api_key=api_key
    )


OnceOf = Annotated[Once, Depends(_once)]
