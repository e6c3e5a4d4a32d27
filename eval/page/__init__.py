"""The page about a run: what is drawn and shown of it; `eval.report` is the command."""
