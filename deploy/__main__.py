"""`python -m deploy …` is `nextclick …`: for starting child processes with the interpreter at hand."""

from deploy.cli import main

main()
