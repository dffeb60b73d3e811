"""Who makes room for whom: the cheapest running work that goes so that a blocked workload fits.

It must not apply anything, and knows neither queues nor how fair share is worked out: that
is `Entitlements`.

Why nothing is ever evicted in a circle. Of the running workloads of a tenant in a class,
taken by priority (higher first) and admission (earlier first), those are *guaranteed* that
together stay within its nominal quota, one that does not fit being passed over; the others
are *borrowed*. Extra pods of elastic gangs come after all whole workloads. Then

* priority: in its own tenant a workload evicts lower priorities only; guaranteed ones only
  if it is guaranteed itself;
* reclaim: of other tenants only borrowed work, and only if its tenant stays within its
  nominal quota with it, so that it is guaranteed;
* cohort: of other tenants borrowed work of lower priority.

Let V be the numbers of guaranteed workloads and R the numbers of running ones, each by
priority from the highest, and X the extra pods. Starting a workload in free room, and each of
the three kinds of eviction followed by the start for which it was made, makes (V, R, X)
larger in lexicographic order:

* a workload that starts is the last of its priority, so it takes the guarantee from nobody
  of its priority or above; if it is guaranteed, V grows at its priority. If it is not, it
  takes it from nobody at all, V stays, and R grows at its priority.
* reclaim and cohort evict borrowed work, which leaves V as it was; a reclaimer adds itself to
  V, and one of the cohort adds to R at its priority what R loses below.
* priority loses V and R below the priority at which it adds; if it is not guaranteed, it
  loses only in R.

X is lost only with one of these, and regained in free room alone. As (V, R, X) is bounded, a
set of workloads to which none is added comes to rest.

The argument is about tenants without parents. Under parents a workload beyond its tenant's own
nominal may claim what an organisation lent: there the ledger decides, victim by victim
(`Entitlements.reclaimable`), and that it comes to rest is tested, not proven.
"""

from scheduler.preemption.candidates import Candidates
from scheduler.preemption.decision import Budget, Claim, Preemption, Shortfall, Shrink, Victim
from scheduler.preemption.elastic import Extension, ask_of, extend, largest
from scheduler.preemption.entitlements import Entitlements
from scheduler.preemption.replace import Replacement, substitute
from scheduler.preemption.rights import Rights

__all__ = [
    "Budget",
    "Candidates",
    "Claim",
    "Entitlements",
    "Extension",
    "Preemption",
    "Replacement",
    "Rights",
    "Shortfall",
    "Shrink",
    "Victim",
    "ask_of",
    "extend",
    "largest",
    "substitute",
]
