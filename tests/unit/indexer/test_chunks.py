"""How archived entries are taken together where many are loaded."""

from __future__ import annotations

from ai_infra_indexer.taking import CHUNK_BYTES, CHUNK_ENTRIES, in_chunks


def test_bundles_are_loaded_together_up_to_a_number_of_entries_and_of_bytes() -> None:
    small = [(5 + 256 * i, [b"%d" % i] * 256) for i in range(CHUNK_ENTRIES // 256 + 3)]
    together = list(in_chunks(small))
    assert [raw for _, raws in together for raw in raws] == [raw for _, raws in small for raw in raws]
    assert [(first, len(raws)) for first, raws in together] == [(5, CHUNK_ENTRIES), (5 + CHUNK_ENTRIES, 3 * 256)]
    large = bytes(CHUNK_BYTES // 256)
    assert [(first, len(raws)) for first, raws in in_chunks((256 * i, [large] * 256) for i in range(3))] == [
        (0, 256),
        (256, 256),
        (512, 256),
    ]
    assert list(in_chunks([])) == []
