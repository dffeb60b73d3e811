"""What would happen: arrivals replayed through the same `plan()` under a virtual clock.

`Simulation` owns a `Fleet` and does to it what the operators do to a cluster: it admits,
evicts, makes machines that are ready after the provider's delay, and lets work end. It is
a function of its inputs: no clock of its own, no randomness, no files, no Kubernetes. It
must not decide anything that a plan decides.
"""

from scheduler.simulate.cluster import VirtualCluster
from scheduler.simulate.driver import Simulation, Step
from scheduler.simulate.outcome import Arrival, Outcome, Policy, Record, Sample

__all__ = ["Arrival", "Outcome", "Policy", "Record", "Sample", "Simulation", "Step", "VirtualCluster"]
