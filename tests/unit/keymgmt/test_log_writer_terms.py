"""A writer whose term is over, a checkpoint that it left, a store that turned back; results brought to the loop."""

import asyncio
import threading
import time
from concurrent.futures import Future

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.broker.completions import Completions
from keymgmt.lifecycle.database import open_database
from keymgmt.lifecycle.journal import Journal, StoreUnavailable
from keymgmt.lifecycle.log_lease import LogLease
from keymgmt.lifecycle.publication import LogPublication
from keymgmt.lifecycle.schema import log_head, log_state
from keymgmt.transparency import entries
from keymgmt.transparency.errors import LogRolledBack
from keymgmt.transparency.log import CHECKPOINT, TransparencyLog
from keymgmt.transparency.note import Checkpoint, VerifierKey
from keymgmt.transparency.sequencer import Published, restore_checkpoint
from keymgmt.transparency.tiles import TileFiles

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = VerifierKey("kekkai.test/log", PRIVATE.public_key().public_bytes_raw())


def grown(folder, *batches):
    """A log after each batch of entries: its signed checkpoints."""
    log = TransparencyLog(folder, KEY, PRIVATE.sign)
    signed = []
    for batch in batches:
        log.append([bytes([n]) for n in batch])
        signed.append(log.signed_checkpoint)
    return log, signed


def test_a_checkpoint_left_by_a_late_writer_is_put_right_from_the_store(tmp_path):
    log, (old, new) = grown(tmp_path, range(5), range(5, 9))
    log.files.replace(CHECKPOINT, old)
    restore_checkpoint(log.files, KEY, Published(9, log.checkpoint.root, 9, new))
    assert log.files.read(CHECKPOINT) == new
    restore_checkpoint(log.files, KEY, Published(5, b"", 9, old))  # the file is ahead: nothing to do
    assert log.files.read(CHECKPOINT) == new


def test_a_log_that_lacks_the_stores_entries_is_an_old_copy(tmp_path):
    log, (_, new) = grown(tmp_path / "newest", range(5), range(5, 9))
    grown(tmp_path / "old", range(5))
    with pytest.raises(LogRolledBack):
        restore_checkpoint(TileFiles(tmp_path / "old"), KEY, Published(9, log.checkpoint.root, 9, new))


@pytest.fixture
def publication(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}")

    def open_log():
        return TransparencyLog(tmp_path / "log", KEY, PRIVATE.sign)

    made = LogPublication(engine, open_log, LogLease(engine, "one", 60))
    made.start()
    made.engine, made.files = engine, TileFiles(tmp_path / "log")
    yield made
    made.close()
    engine.dispose()


def test_a_fenced_writer_steps_down_and_its_record_changes_nothing(publication):
    journal = Journal(publication.engine, publication)
    journal.start()
    journal.submit(lambda change: change.log(entries.DENIAL, {"n": 0})).result()
    assert publication.leads
    with publication.engine.begin() as connection:  # another replica has begun a term
        connection.execute(log_head.update().values(holder="two", epoch=99, expires=4e9))
    late = journal.submit(lambda change: change.log(entries.DENIAL, {"n": 1}))
    deadline = time.monotonic() + 20
    while publication.leads:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with publication.engine.connect() as connection:
        head = connection.execute(log_head.select()).one()
    assert (head.published_size, head.epoch, head.holder) == (1, 99, "two")
    assert not late.done()  # nobody is answered on the strength of what it wrote
    with publication.engine.begin() as connection:  # the other one is gone
        connection.execute(log_head.update().values(expires=0))
    assert late.result(timeout=20) == 1
    assert publication.leads
    assert publication.epoch == 100
    assert Checkpoint.open(publication.checkpoint, KEY).size == 2
    journal.close()


def test_a_store_that_turned_back_under_a_running_service_stops_it(publication):
    journal = Journal(publication.engine, publication)
    journal.start()
    for number in range(3):
        journal.submit(lambda change, n=number: change.log(entries.DENIAL, {"n": n})).result()
    with publication.engine.begin() as connection:
        connection.execute(log_state.update().values(next_index=1))
    with pytest.raises(StoreUnavailable):
        journal.submit(lambda change: change.log(entries.DENIAL, {"n": 9})).result()
    assert not journal.healthy
    journal.close()


def test_results_of_threads_reach_their_waiters_and_errors_too():
    async def main():
        completions = Completions()
        futures = [Future() for _ in range(50)]

        def complete():
            for number, future in enumerate(futures):
                if number % 7:
                    future.set_result(number)
                else:
                    future.set_exception(InvalidInput(str(number)))

        gone = asyncio.create_task(completions.wait(futures[1]))
        await asyncio.sleep(0)
        gone.cancel()
        waiting = asyncio.gather(*(completions.wait(future) for future in futures), return_exceptions=True)
        await asyncio.sleep(0)
        threading.Thread(target=complete).start()
        return await asyncio.wait_for(waiting, 20)

    results = asyncio.run(main())
    for number, result in enumerate(results):
        assert (result == number) if number % 7 else (isinstance(result, InvalidInput) and str(number) in str(result))


@pytest.mark.parametrize(
    "text", [b'{"n": 123456789012345678901}', b"[-12345678901234567890]", b"[1,[2,100000000000000000000]]"]
)
def test_integers_beyond_twenty_characters_are_refused(text):
    with pytest.raises(InvalidInput):
        strict_json.parse(text)


def test_long_digits_in_strings_and_shorter_integers_are_taken():
    text = b'{"serial": "123456789012345678901234567890", "n": [12345678901234567890, -1]}'
    assert strict_json.parse(text)["n"] == [12345678901234567890, -1]
