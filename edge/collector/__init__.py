"""The receiving end at the centre: every site's events, exactly once and in order, in one SQLite database."""
