"""What each command is asked for: its options and what can be said of them at once. Imports no torch."""
