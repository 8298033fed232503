"""The event: what is said between services, on the wire and in memory.

Pure: bytes in, typed bodies out, and back. Nothing in this room opens a connection, reads a clock (except
`identifiers.uuid7`) or decides whether a signer may say something: that is the trust room's question.
"""
