"""Proofs that travel: about one event, or that one tree continues another; checked with nothing but pinned keys.

    entries.py       entries of a file, decoded and verified
    evidence.py      what a proof file carries beside the inclusion proof: the entry, the keyrings of its lane
    ran.py           what served at a time: all that the lane has from the change up to then
    making.py        from an archive to a proof file; finds an event, and where keyrings were entered
    checking.py      from a proof file and root keys to what it proves, and what it does not

Making trusts what it reads and checks the result; checking trusts the pinned keys alone.
"""
