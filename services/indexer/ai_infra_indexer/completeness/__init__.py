"""Nothing withheld: what a lane's log says about the numbers of those who count what they say.

numbers.py   which numbers of a producer were seen, in ranges; pure
ledger.py    from a lane's entries to what is missing, doubled or equivocal; pure
reading.py   a lane's entries as the ledger wants them, from Postgres or the archive
watch.py     the same, kept up to date in the indexer: metric, and findings to be said
"""
