"""The transparency log: RFC 6962 trees, tiles, signed notes, checkpoints and proofs, to the letter of C2SP.

For the indexer that writes a lane's log, and for everybody who verifies one. Pure: no file, network, clock or
randomness in this room; what it needs to read is passed in as a callable, what is to be written is returned.
It must never trust a size or a root that did not come out of a verified checkpoint.

    tree.py          leaf_hash(entry) -> bytes; node_hash(left, right) -> bytes; root(leaf_hashes) -> bytes; EMPTY_ROOT
                     Frontier(size=0, nodes=()): .append(leaf) -> Frontier; .extend(leaves) -> Frontier; .root()
                                                 .to_bytes() -> bytes; Frontier.from_bytes(data)
    proofs.py        inclusion_proof(index, size, hashes) -> list[bytes]; consistency_proof(old_size, new_size, hashes)
                     verify_inclusion(*, leaf, index, size, proof, root)                      raises BadProof
                     verify_consistency(*, old_size, old_root, new_size, new_root, proof)     raises BadProof
                     hashes: HashReader = (height, index) -> MTH(D[index << height : (index + 1) << height])
                     LeafHashes(leaves), TileHashes(size, read_tile): two HashReaders; read_tile(level, index, width)
    tiles.py         tile_path(level, index, width=256); entries_path(index, width=256); parse_path(path) -> Tile
                     Tile(level | None for entries, index, width): .path, .full
                     tiles_for_growth(old_size, new_size) -> list[Tile]; tiles_of(size) -> list[Tile]
                     encode_bundle(entries) -> bytes; decode_bundle(data, width=None) -> list[bytes]
    growth.py        RightEdge(size=0, hashes=(), bundle=b""): .frontier(), .root(), .check(root)
                     RightEdge.load(size, read_tile, read_bundle) -> RightEdge
                     grow(edge, entries, leaf_hashes=None) -> Growth(edge, writes)
                     writes: tuple of TileWrite(path, data, full)
    note.py          NoteSigner(name, key) with key.public_key, key.sign(message); sign_note(text, signers) -> bytes
                     VerifierKey(name, public_key, kind=ED25519): .key_id, str() is the vkey; parse_vkey(text)
                     parse_note(data) -> Note (untrusted); open_note(data, known) -> OpenedNote
    checkpoint.py    Checkpoint(origin, size, root): .text; sign_checkpoint(checkpoint, signers) -> bytes
                     open_checkpoint(data, *, origin, log_keys, witnesses=(), quorum=0) -> OpenedCheckpoint
    cosignature.py   cosign(note, signer, timestamp) -> bytes
    heads.py         Heads(origin, time_ms, lanes: tuple[LaneHead(size, root), ...]): .text; sign_heads; open_heads
    proof_file.py    LogProof(index, hashes, checkpoint, extra): .to_bytes(), LogProof.parse(data), LogProof.make(...)
                     verify_log_proof(data, *, entry, origin, log_keys, witnesses=(), quorum=0) -> OpenedCheckpoint
    consistency_file.py  ConsistencyFile(old_size, hashes, checkpoint): .to_bytes(), .parse(data), .make(...)
                     verify_consistency_file(data, *, old, log_keys, witnesses=(), quorum=0) -> OpenedCheckpoint
    exceptions.py    TlogError and its subclasses, each with a stable `code`
"""
