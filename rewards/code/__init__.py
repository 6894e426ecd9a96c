"""Grading programs by their tests: reading what data sets hold, running it in the sandbox, comparing outside it."""
