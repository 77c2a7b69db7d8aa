"""The peers: the least that does the same over HTTP, under the same web server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from secateur.resources import Job

from service import examples

Message = dict[str, Any]


def receiver() -> Callable[..., Awaitable[None]]:
    """A bare ASGI application that writes each body to a file and answers with its SHA-256.

    The file is left in the operating system's cache: nothing waits for the disk. It lies in the
    folder `PEER_FOLDER` under one name, so a later upload replaces it.
    """
    target = Path(os.environ["PEER_FOLDER"]) / "received"

    async def application(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        digest = hashlib.sha256()
        with target.open("wb") as file:
            more = True
            while more:
                message = await receive()
                body = message.get("body", b"")
                file.write(body)
                digest.update(body)
                more = message.get("more_body", False)
        answer = digest.hexdigest().encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


def route() -> FastAPI:
    """A FastAPI application whose only route returns the same job every time: no database, no
    key, no log line. The job is the example of the API's documentation, as a pydantic model."""
    app = FastAPI()
    job = Job.model_validate(examples.JOB)

    @app.get("/v1/jobs/{job_id}")
    async def get_job(job_id: str) -> Job:  # noqa: ARG001 - read from the path, as ours is
        return job

    return app
