"""Rules times facts: outcomes, and how they combine into one decision."""
