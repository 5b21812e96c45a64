"""What the journal says, for people and commands that only look. Light: `edge status` waits for these imports."""
