"""Where data come from: a module a kind of source; `eval.importers` is the command."""
