"""The runtime that every service runs on: verified events in, decisions out, exactly once.

A service declares what it hears and says, a pure `decide`, and the work it does to the world (`service.py`); this room
does the rest: verification, order within a lane, one Kafka transaction for outputs, state, timers, pending work and
offsets, dead letters, refusals, halts and restarts. It must never let an unverified event change state.
"""
