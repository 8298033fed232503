"""Keys, signers, the keyring, delegations: who may say what, and who says so.

This room knows no Kafka and no database. It turns a record that arrived into an event that may be acted upon
(`ai_infra.trust.verify`), and a key by URI into signatures that were checked before they are used.
"""
