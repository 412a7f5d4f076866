"""The ledger: every attempt on disk, and its sum always that of its rows."""

import asyncio
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tables
from helpers.files import write_atomically
from helpers.services.ledger import Ledger

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "ok", "failed", "unknown", "save", "reload"]),
        st.integers(0, 4),
        st.floats(0, 2),
    ),
    max_size=30,
)


def order(number):
    return SimpleNamespace(
        image_id=f"g{number}", prompt_id="p", prompt="a prompt, with a comma\nand a line"
    )


@settings(max_examples=40, deadline=None)
@given(events=EVENTS)
def test_its_sum_is_that_of_its_rows_and_what_was_saved_comes_back(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("ledger") / "ledger.csv"
    ledger, pending = Ledger(path), []
    for event, number, usd in events:
        if event == "begin":
            pending.append(
                ledger.begin(order(number), usd, model="m", size="1024x1024", quality="low")
            )
        elif event == "save":
            asyncio.run(ledger.save())
        elif event == "reload":
            ledger.save_now()
            ledger = Ledger(path)
        elif pending:
            known = (
                {}
                if event == "unknown"
                else {"cost_usd": usd, "seconds": 1.5, "input_tokens": 3, "output_tokens": 4}
            )
            ledger.settle(pending.pop(), event, **known)
        assert ledger.spent_usd == pytest.approx(
            math.fsum(row["cost_usd"] for row in ledger.rows.values()), abs=1e-9
        )
        assert ledger.settled_usd <= ledger.spent_usd + 1e-9
    ledger.save_now()
    again = Ledger(path)
    assert again.rows == ledger.rows
    assert again.frame().equals(tables.read(path))


def test_attempts_at_one_image_are_numbered():
    ledger = Ledger("/nowhere/ledger.csv")
    names = [
        ledger.begin(order(number), 0.1, model="m", size="s", quality="q")
        for number in (1, 2, 1, 1)
    ]
    assert [ledger.rows[name]["attempt"] for name in names] == [1, 1, 2, 3]


def test_writes_that_come_together_are_one_and_none_returns_before_it_is_on_disk(
    tmp_path, monkeypatch
):
    ledger, writes = Ledger(tmp_path / "ledger.csv"), []
    write = write_atomically

    def counted(path, content, mode=0o644):
        writes.append(len(content))
        write(path, content, mode)

    monkeypatch.setattr(tables, "write_atomically", counted)

    async def one(number):
        name = ledger.begin(order(number), 0.1, model="m", size="s", quality="q")
        await ledger.save()
        assert name in Ledger(ledger.path).rows

    async def many():
        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(many())
    assert len(writes) < 20 and len(Ledger(ledger.path).rows) == 20


def test_a_ledger_is_saved_from_one_event_loop_after_another(tmp_path):
    ledger = Ledger(tmp_path / "ledger.csv")

    async def two_at_once():
        async def one(number):
            ledger.begin(order(number), 0.1, model="m", size="1024x1024", quality="low")
            await ledger.save()

        await asyncio.gather(one(0), one(1))

    asyncio.run(two_at_once())
    asyncio.run(two_at_once())
    assert len(Ledger(ledger.path).rows) == 4
