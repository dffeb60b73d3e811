"""What runs, as columns, and what would fit if some of it were gone.

Preemption asks "if these victims were gone", reservations ask "once these have ended":
the same question over another order of the running workloads. Nothing here decides who
may be evicted or who waits for whom.
"""

from scheduler.running.columns import Columns, Running

__all__ = ["Columns", "Running"]
