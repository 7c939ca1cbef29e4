"""What JupyterLab does: open a notebook, run all cells, save it under another name, save it."""

from jupyter_server.services.contents.largefilemanager import LargeFileManager
from nbclient import NotebookClient
from traitlets.config.loader import PyFileConfigLoader

config = PyFileConfigLoader("jupyter_server_config.py", path="notebooks").load_config()
manager = LargeFileManager(config=config, root_dir="notebooks")
model = manager.get("tiny.ipynb")
model["content"].metadata.toc = model["content"].cells[0].metadata.editable = True
NotebookClient(model["content"]).execute()
for name in "copy.ipynb", "tiny.ipynb":
    manager.save(model, name)
