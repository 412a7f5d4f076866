"""What was paid for and what the disk does to it: full, read-only, a ledger lost or cut off."""

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
import threading

import pandas as pd
import pytest
from faulty_service import ImageServer
from generations import elsewhere, generate, generation, on_disk, run_of  # noqa: F401

from helpers import files, tables
from helpers.generate_openai import batches, paid_images, prompts, requests, service
from helpers.runner import folders
from helpers.services import connection, work

LIMITED = """
import resource, sys
sys.path.insert(0, "tests")
import generations
from helpers.services import connection
server = type("Server", (), {"url": sys.argv[1]})
made = generations.generation(server, 6, in_flight=2)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    generations.generate(made)
except connection.ServiceError as error:
    print(error)
"""


def test_what_could_not_be_kept_is_not_bought():
    with ImageServer(sketch=True) as server:
        command = [sys.executable, "-c", LIMITED, server.url]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folders.ROOT, env=os.environ
        )
    assert server.requests == []
    assert "cannot hold an answer (File too large)" in done.stdout and "OUTPUTS" in done.stdout


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_sent():
    with ImageServer(sketch=True) as server:
        made = generation(server)
        made.paid.parent.mkdir(parents=True)
        made.paid.write_text("a link that a cloud drive left behind")
        with pytest.raises(connection.ServiceError, match="Nothing is sent, because .* cannot"):
            generate(made)
    assert server.requests == []


def test_a_paid_answer_waits_for_space_on_the_disk(monkeypatch, capsys):
    full, write = threading.Event(), files.write_atomically

    def limited(path, content, mode=0o644):
        if full.is_set() and len(content) > 2000:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content, mode)

    monkeypatch.setattr(paid_images, "write_atomically", limited)
    full.set()
    threading.Timer(1.5, full.clear).start()
    with ImageServer(sketch=True) as server:
        made = generation(server, 4, in_flight=2)
        ledger = generate(made)
    assert len(on_disk(made)) == len(server.requests) == 4
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)
    assert capsys.readouterr().out.count("cannot be written") == 2


def test_a_disk_that_stays_full_is_said(monkeypatch):
    def full(path, content, mode=0o644):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(paid_images, "write_atomically", full)
    with ImageServer(sketch=True) as server:
        made = generation(server, 6, in_flight=2, patience_seconds=0.0)
        with pytest.raises(connection.ServiceError, match="No space left.*Free some space"):
            generate(made)
    assert len(server.requests) == 2


def test_a_ledger_cut_off_anywhere_is_damaged_or_completed_from_what_was_paid():
    with ImageServer(sketch=True) as server:
        made = generation(server, 3)
        whole = generate(made)
        content = made.ledger.path.read_bytes()
        for cut in (None, *range(0, len(content), 5), *range(len(content) - 40, len(content))):
            made.ledger.path.unlink()
            if cut is not None:
                made.ledger.path.write_bytes(content[:cut])
            made.ledger.copy.unlink(missing_ok=True)
            try:
                again = generation(server, 3)
            except tables.TableError as error:
                assert "restore it from a backup" in str(error)
                made.ledger.path.write_bytes(content)
                continue
            assert again.wanted == []
            assert again.ledger.spent_usd == pytest.approx(server.billed_usd)
            columns = ["request_id", "prompt", "size", "output_tokens", "status"]
            compared = [
                frame.sort_values("request_id", ignore_index=True)[columns]
                for frame in (whole, again.ledger.frame())
            ]
            pd.testing.assert_frame_equal(*compared)
        assert len(server.requests) == 3


@pytest.mark.parametrize("how", [requests, batches])
def test_a_lost_ledger_forgets_no_attempt(how):
    given = {"mode": "batch" if how is batches else "now", "in_flight": 1, "ask_again": 1}
    with ImageServer(sketch=True, script=["moderation", "empty", "cut"]) as server:
        made = generation(server, 4, **given)
        with contextlib.suppress(connection.ServiceError):
            asyncio.run(how.generate(made))
        before = made.ledger.frame()
        made.ledger.path.rename(made.ledger.path.with_name("moved.csv"))
        again = generation(server, 4, **given)
        assert again.wanted == [] and again.ledger.path.exists()
    pd.testing.assert_frame_equal(again.ledger.frame(), before)
    found = {"submitted"} if how is batches else {"refused", "failed", "unknown", "ok"}
    assert set(before["status"]) == found


@pytest.mark.parametrize("left", [b"", b'{"bytes": 1', b"[]", b'"text"', b'{"bytes": 1}'])
def test_a_damaged_record_is_one_sentence(left):
    with ImageServer(sketch=True) as server:
        made = generation(server, 2)
        generate(made)
        (made.paid / f"{made.orders[0].image_id}.json").write_bytes(left)
        with pytest.raises(connection.ServiceError, match=r"\.json is damaged: restore it"):
            generation(server, 2)
    assert work.record(made.paid / "none.json") == {}


def test_a_prompt_with_a_carriage_return_leaves_a_ledger_that_can_be_read(tmp_path):
    path = tmp_path / "prompts.csv"
    lines = ["prompt_id,modality,finding,side,prompt,count", 'p,xray,effusion,left,"one\rtwo",1']
    path.write_bytes("\n".join(lines).encode())
    with ImageServer(sketch=True) as server:
        run = run_of(base_url=server.url)
        asked = service.of(run)
        wanted = prompts.orders(prompts.read_prompts(path), asked)
        made = requests.Generation(run, asked, wanted)
        generate(made)
        assert requests.Generation(run, asked, wanted).wanted == []
    assert made.ledger.frame()["prompt"].tolist() == ["one\ntwo"]
