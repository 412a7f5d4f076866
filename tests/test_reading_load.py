"""Many readers at once, played by a client that speaks the protocol: all get in, nothing fails,
nothing is lost.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import reading_studies
from reading_client import Server, message

from helpers.reading import store


def serve(root, readers: int, read: int) -> Server:
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(root, patch.setenv)
        reading_studies.make(root, read=read, training=0, size=512, number_of_readers=readers)
    return Server(root).start()


def arrive(server: Server, number: int) -> float:
    """Open the page as reader `number` until the widget's state and the first image are there;
    returns the seconds it took.
    """
    began = time.monotonic()
    client = server.client(number)
    client.enter()
    kernel = client.open_page()
    with client.socket(kernel) as socket:
        socket.send(message("kernel_info_request", {}))
        while "kernel_info_reply" not in str(socket.recv(timeout=60)):
            pass
    state = client.state()
    assert client.picture(state["current"])[0] == 200
    return time.monotonic() - began


def read(server: Server, number: int, answers: int, pause: float) -> list[str]:
    """Answer `answers` images, one every `pause` seconds; returns their ids. Any refusal fails."""
    client, given = server.client(number), []
    for _ in range(answers):
        state = client.state()
        assert client.picture(state["current"])[0] == 200
        status, kept = client.answer(state["current"])
        assert status == 200 and kept["saved"]
        given.append(state["current"])
        time.sleep(pause)
    return given


def play(root, readers: int, reading: int, answers: int, pause: float, images: int) -> float:
    """`readers` arrive together, `reading` of them read; returns the seconds until the last one
    could read.
    """
    server = serve(root, readers, images)
    try:
        with ThreadPoolExecutor(readers) as pool:
            arrived = list(pool.map(lambda number: arrive(server, number), range(readers)))
            given = list(
                pool.map(lambda number: read(server, number, answers, pause), range(reading))
            )
        engine = store.open_store(
            server.root / "outputs" / reading_studies.STUDY / "07_read_cases" / "readings.sqlite"
        )
        assert store.verify(engine) == []
        for name, answered in zip(server.links, given):
            kept = [event for event in store.events(engine, name) if event.event == "answered"]
            assert [event.blind_id for event in kept] == answered
            assert all(event.payload["description"] == f"seen {event.blind_id}" for event in kept)
        orders = {
            tuple(block["images"])
            for event in store.events(engine)
            if event.event == "assigned"
            for block in event.payload["blocks"]
        }
        assert len(orders) == readers, "every reader has an order of their own"
        assert Counter(server.log.read_text().split()).get("Traceback", 0) == 0
        engine.dispose()
    finally:
        server.stop()
    return max(arrived)


def test_five_arrive_together_and_read(tmp_path):
    play(tmp_path, readers=5, reading=5, answers=6, pause=0.05, images=30)


@pytest.mark.soak
def test_twenty_five_arrive_together_and_ten_read_for_five_minutes(tmp_path, record_property):
    seconds = play(tmp_path, readers=25, reading=10, answers=100, pause=3.0, images=100)
    record_property("seconds until the last of 25 could read", round(seconds, 1))
    print(f"the last of 25 readers could read after {seconds:.1f} s")
