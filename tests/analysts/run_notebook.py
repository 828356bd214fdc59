"""Runs a notebook from top to bottom beside a demo campaign: `run_notebook.py CAMPAIGN NOTEBOOK ENERGYLENS`."""

import os
import sys

import nbformat
from nbclient import NotebookClient

_, campaign, path, program = sys.argv
notebook = nbformat.read(path, as_version=4)
nbformat.validate(notebook)
assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
# The kernel is this Python; the program and the campaign are where the notebook looks for them.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.path.dirname(program), os.environ["PATH"]])
os.environ["ENERGYLENS_CAMPAIGN"] = campaign
os.environ["IPYTHONDIR"] = os.environ["JUPYTER_CONFIG_DIR"] = os.path.join(os.path.dirname(campaign), "jupyter")
os.environ["JUPYTER_RUNTIME_DIR"] = os.path.join(os.path.dirname(campaign), "jupyter", "runtime")
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
code = [cell for cell in notebook.cells if cell.cell_type == "code"]
assert any(output.output_type == "execute_result" for cell in code for output in cell.outputs), "nothing was shown"
print(f"{len(code)} cells ran")
