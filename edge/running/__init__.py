"""From an accepted order to a machine at work: planned, held against machines, claimed, carried out, recovered."""
