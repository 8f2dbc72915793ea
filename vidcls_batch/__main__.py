"""`python -m vidcls_batch`: the command `vidcls`, also where it is not installed."""

from vidcls_batch.cli import app

app(prog_name="vidcls")
