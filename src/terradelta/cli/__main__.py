"""`python -m terradelta.cli`."""

from terradelta.cli import main

main()
