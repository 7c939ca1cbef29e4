"""`python -m fakevlm` is the command `fakevlm`."""

from fakevlm.cli import main

main()
