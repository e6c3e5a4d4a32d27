"""What is timed, a module a benchmark, and what they share; `eval.bench` is the command."""
