"""The trainer: takes jobs, really runs their trainings, and says what became of them and of what they made.

It never holds the key of anything but its own service, and never lets a training see even that.
"""
