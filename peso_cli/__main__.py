"""`python -m peso_cli`, and what `torchrun` and `accelerate launch` start with `-m`."""

from peso_cli.cli import main

main()
