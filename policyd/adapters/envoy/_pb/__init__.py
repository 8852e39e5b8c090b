"""Generated from proto/ by proto/generate.py; not written by hand."""
