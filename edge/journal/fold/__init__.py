"""What each event does to the journal's tables, a module for each kind of thing; `projection` beside it has the rules.

A function that takes an event writes down what this event changes, and raises `IllegalTransitionError` if it does not
fit what is there.
"""
