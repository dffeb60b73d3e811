"""Where it fits: eligibility of nodes, gangs all-or-nothing, topology, shares of devices, and which place is best.

It must not know who is next, whose quota it is, or what a plan does with a placement.
"""
