"""The canary: how fast an approved artifact comes to serve, and whether it goes back.

It alone says `deployment.changed`, so (model, environment) has one writer, and it makes the last compare-and-swap: a
decision that rests on an outdated view of what serves is refused, not applied.
"""
