"""Which tags a block's indexes stand for is read from the store once for each epoch in use, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from agent.model import Tag, ValueType
from agent.wire import Catalog, epoch_of
from datacenter import names
from datacenter.bindings import Bindings
from datacenter.ledger import Ledger, Outcome
from datacenter.store import Store
from tests.datacenter_rig import block, catalog


def _tags(agent: str, count: int = 3) -> list[Tag]:
    return [Tag(at, "d1", f"v{at}", f"hr:{at}", ValueType.FLOAT32, f"88.1/{agent}.v{at}") for at in range(count)]


def _learned(store: Store, agents: int) -> list[int]:
    """The epochs of so many agents, of three tags each."""
    epochs = []
    with store.transaction():
        for at in range(agents):
            body = catalog(_tags(f"agent{at}"), f"agent{at}")
            names.bind(store, epoch_of(body), Catalog.decode(body))
            epochs.append(epoch_of(body))
    return epochs


def test_the_epochs_of_many_agents_stay_in_memory_while_their_blocks_come_in_turn(tmp_path: Path) -> None:
    store = Store(tmp_path)
    epochs = _learned(store, 200)
    bindings = Bindings(store)
    first = [bindings.of(epoch) for epoch in epochs]
    assert len({tuple(each.keys.to_pylist()) for each in first}) == 200
    assert all(bindings.of(epoch) is one for epoch, one in zip(epochs, first, strict=True))
    store.close()


def test_no_more_tags_stay_in_memory_than_there_may_be(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, two, three = _learned(store, 3)
    bindings = Bindings(store, most=7)
    first, second = bindings.of(one), bindings.of(two)
    assert bindings.of(one) is first
    third = bindings.of(three)  # nine tags: the epoch that was asked for longest ago goes
    assert (bindings.of(one), bindings.of(three)) == (first, third)
    again = bindings.of(two)
    assert again is not second
    assert again.keys.equals(second.keys)
    small = Bindings(store, most=1)
    assert small.of(one) is small.of(one)
    store.close()


def test_a_block_with_tags_or_kinds_that_are_not_in_its_catalog_is_a_loss(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ledger = Ledger(store)
    body = catalog(_tags("press-shop-1"))
    epoch, stream = epoch_of(body), uuid4()
    beyond = [*_tags("press-shop-1"), Tag(3, "d1", "more", "hr:3", ValueType.FLOAT32, "88.1/more")]
    text = [Tag(0, "d1", "v0", "hr:0", ValueType.STRING, "88.1/press-shop-1.v0")]
    with store.transaction():
        ledger.learn(body, 0)
        for sequence, rows, tags in ((1, [(3, 1, 1.0, 0)], beyond), (2, [(0, 1, "a", 0)], text)):
            made = block(stream, sequence, rows, epoch=epoch, tags=tags)
            assert ledger.add("press-shop-1", made, 0) == (stream, Outcome.STORED)
        ledger.close()
    assert [loss.reason.partition(" in the catalog")[0] for loss in ledger.losses] == [
        "tag 3 holds float32, and is no tag",
        "tag 0 holds string, and is a real value",
    ]
    assert ledger.committed(stream) == 2
    store.close()
