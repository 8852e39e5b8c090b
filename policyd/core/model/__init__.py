"""The nouns, frozen. No behaviour that decides anything."""
