"""The command: options -> pipeline -> tasks -> workers, with estimates and messages.

command.py turns errors and signals into one line and an exit status, pipeline.py runs the stages,
tasks.py cuts them into tasks, and workers.py computes these here, in processes or on a cluster.

May import: everything. Only this package imports the stages.
"""
