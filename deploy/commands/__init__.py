"""One file per command of `nextclick`; each imports what it runs, so that `--help` stays quick."""
