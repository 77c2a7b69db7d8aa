"""The embedded broker under several producers and consumers at once."""

from __future__ import annotations

import threading
from pathlib import Path

import kombu
from kombu.simple import SimpleQueue

from workers import file_transport

PRODUCERS, EACH = 4, 50


def connect(folder: Path) -> kombu.Connection:
    file_transport.register()
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.01,
    }
    return kombu.Connection(f"{file_transport.SCHEME}://", transport_options=options)


def queue(connection: kombu.Connection, name: str) -> SimpleQueue:
    return connection.SimpleQueue(
        kombu.Queue(name, kombu.Exchange(""), routing_key=name), no_ack=True
    )


def test_every_message_is_taken_once_and_whole(tmp_path: Path) -> None:
    taken: list[str] = []
    errors: list[BaseException] = []

    def produce(producer: int) -> None:
        with connect(tmp_path) as connection:
            out = connection.Producer(serializer="json")
            for number in range(EACH):
                body = {"id": f"{producer}.{number}", "filler": "x" * 20_000}
                out.publish(body, exchange="", routing_key="jobs")

    def consume() -> None:
        try:
            with connect(tmp_path) as connection:
                source = queue(connection, "jobs")
                while len(taken) < PRODUCERS * EACH:
                    try:
                        taken.append(source.get(timeout=0.1).payload["id"])
                    except source.Empty:
                        continue
        except BaseException as error:  # reported to the test below
            errors.append(error)
            raise

    threads = [threading.Thread(target=consume, daemon=True) for _ in range(3)]
    threads += [threading.Thread(target=produce, args=(n,), daemon=True) for n in range(PRODUCERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not errors
    assert sorted(taken) == sorted(f"{p}.{n}" for p in range(PRODUCERS) for n in range(EACH))
    assert list((tmp_path / "messages").iterdir()) == []


def test_queues_are_apart_and_nothing_is_left_in_the_control_folder(tmp_path: Path) -> None:
    with connect(tmp_path) as connection:
        first, second = queue(connection, "secateur-cpu"), queue(connection, "secateur-gpu")
        first.put({"to": "cpu"})
        second.put({"to": "gpu"})
        assert second.get(timeout=5).payload == {"to": "gpu"}
        assert first.get(timeout=5).payload == {"to": "cpu"}
    assert list((tmp_path / "control").iterdir()) == []
