"""What runs, as columns, and what would fit if some of it were gone.

Preemption asks "if these victims were gone", reservations ask "once these have ended":
the same question over another order of the running workloads. Nothing here decides who
may be evicted or who waits for whom.
"""

from scheduler.running.columns import Columns, Running
from scheduler.running.question import Question, indices_of, part_of
from scheduler.running.room import PoolRoom

__all__ = ["Columns", "PoolRoom", "Question", "Running", "indices_of", "part_of"]
