"""The registry: looks at every artifact that is said to exist, and gives the sound ones a version and a signature.

It believes nothing that it has not hashed or verified itself, and holds no artifact: only what it decided about each.
"""
