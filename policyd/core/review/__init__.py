"""What is legal and yet hardly meant, over a whole set of policies. `policyd check` asks for it; no call pays for it.

Rule 1: a warning is true: what is said to be impossible is impossible for every call. Unsure means silent.
"""
