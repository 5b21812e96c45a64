"""Machines made safe while no daemon runs: by a person, or by the guard that outlives the daemon."""
