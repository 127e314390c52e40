"""A batch with blocks and states of many agents is written in few statements, and every account is right after it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import orjson

from agent.wire import ROOT, State
from datacenter.ingest import Ingest
from datacenter.message import Message
from datacenter.store import Store
from tests.datacenter_rig import EPOCH, Rig, block, catalog, until


def test_the_accounts_of_many_streams_are_right_after_each_batch(tmp_path: Path) -> None:
    streams = {f"agent{at}": uuid4() for at in range(5)}
    rounds = (("agent0", "agent1", "agent2"), ("agent3",), ("agent0", "agent2", "agent3", "agent4"), ("agent1",))
    store, done = Store(tmp_path), 0
    ingest = Ingest(store, ROOT)
    acknowledged: list[int] = []
    ingest.start(lambda *_: None, lambda: None)
    sent = dict.fromkeys(streams, 0)
    batches = [[("agent0", "catalog", catalog())]]
    for agents in rounds:
        batch = []
        for agent in agents:
            sent[agent] += 1
            batch.append((agent, "data", block(streams[agent], sent[agent])))
            # Told twice in a batch: the later one counts.
            batch += [(agent, "state", State(True, streams[agent], EPOCH, {"n": n}).encode()) for n in (0, sent[agent])]
        batches.append(batch)
    for batch in batches:
        with ingest._wake:  # so that it is taken as a whole
            for agent, word, body in batch:
                assert ingest.offer(Message(agent, word, body, False, lambda: acknowledged.append(1)))
        done += len(batch)
        until(lambda done=done: len(acknowledged) == done)  # type: ignore[misc]
    commits = ingest.counters.commits
    assert ingest.stop(5.0)
    store.close()
    assert commits == len(batches)
    with Rig(tmp_path) as rig:
        for agent, stream in streams.items():
            found = rig.stream(stream)
            wanted = (agent, sent[agent], sent[agent], 3 * sent[agent], sent[agent])
            assert tuple(found[word] for word in ("agent", "committed", "last", "readings", "blocks")) == wanted
        with rig.store.snapshot() as view:
            states: dict[str, str] = dict(view.rows("SELECT agent, state FROM agents"))
        assert {agent: orjson.loads(state)["facts"]["n"] for agent, state in states.items()} == sent
