"""From YAML text to an immutable, type-checked PolicySet."""
