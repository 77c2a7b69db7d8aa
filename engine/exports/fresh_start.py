"""Run as a script: run another script, and end when the process that started this one does.

python -I fresh_start.py PARENT script.py arguments...
"""

import pathlib
import runpy
import sys


def _main(parent: str, script: str, *arguments: str) -> None:
    # By its path: nothing of this product is imported here.
    found = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "parent_death.py"))
    found["die_with_parent"](int(parent))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
