"""How typed bodies come from schemas: read and check them (`sources`), name types (`types`), write modules (`modules`).

Used where the repository is, not at run time.
"""
