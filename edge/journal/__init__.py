"""What happened: events in one SQLite file, chained and folded into tables, and kept true over losses and pruning."""
