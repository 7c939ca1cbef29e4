"""JupyterLab as `make lab` begins it: notebooks compute as stages do, and are saved without outputs."""

from fakevlm.stage import set_environment, strip

set_environment()
c.FileContentsManager.pre_save_hook = strip  # `c` is Jupyter's
