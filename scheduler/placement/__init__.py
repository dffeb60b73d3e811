"""Where it fits: eligibility of nodes, best fit, gangs all-or-nothing, topology."""
