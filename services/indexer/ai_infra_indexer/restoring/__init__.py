"""Bringing the bus back after Kafka was lost: keyrings and policies, the indexer's places, the services' state.

All of it from the log, which is in the archive and, where it survived, in Postgres. Nothing here signs for a service
but with that service's own key, and nothing is sequenced: the log goes on behind its last entry.
"""
