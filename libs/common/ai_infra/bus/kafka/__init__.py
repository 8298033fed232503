"""Kafka itself, before any service: its settings, topics, access rules, administration, and how a record is framed.

The runtime beside it builds on this; nothing here knows a lane, a decision or a service's state.
"""
