"""`ai-infra`, the command line: what people and scripts use to run, watch and mend this system.

A command parses its arguments, asks another room, and shows the answer; what it does lives in that room, never here.
"""
