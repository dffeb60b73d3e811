"""Runs one target for a number of inputs and collects what it should not have done."""

from __future__ import annotations

import random
import time
import traceback
import tracemalloc
from dataclasses import dataclass, field

from crds.errors import KekkaiError
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import Target

SLOW_SECONDS = 2.0  # far above anything that 64 KiB should take, also on a busy machine
MAX_MEMORY = 64 << 20


@dataclass
class Findings:
    """What a campaign found."""

    target: str
    inputs: int = 0
    accepted: int = 0
    faults: list[tuple[bytes, str]] = field(default_factory=list)


def run(target: Target, iterations: int, seed: int = 1, watch_memory: bool = False) -> Findings:
    """`iterations` inputs, the seeds themselves first. Stops early at ten faults."""
    dice = random.Random(f"{target.name}-{seed}")
    found = Findings(target.name)
    pool = list(target.seeds)
    if watch_memory:
        tracemalloc.start()
    for number in range(iterations):
        whole = number < len(target.seeds)
        data = target.seeds[number] if whole else mutate(dice.choice(pool), dice.choice(pool), dice)
        started = time.process_time()
        try:
            target.parse(data)
            found.accepted += 1
            if not whole and len(pool) < 200:
                pool.append(data)  # what still parses is a good place to go on from
        except (KekkaiError, *target.may_raise):
            pass
        except Exception:
            found.faults.append((data, traceback.format_exc(limit=-3)))
        if time.process_time() - started > SLOW_SECONDS:
            found.faults.append((data, f"took {time.process_time() - started:.1f} s of CPU"))
        found.inputs += 1
        if len(found.faults) >= 10:
            break
    if watch_memory:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > MAX_MEMORY:
            found.faults.append((b"", f"peak memory {peak >> 20} MiB"))
    return found
