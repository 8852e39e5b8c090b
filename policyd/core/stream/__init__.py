"""Bytes to facts and back: framing, dialects, hold-back."""
