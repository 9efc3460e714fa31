"""`python -m cli.compile_rules`: compile the rules to C for this interpreter, where there is a C compiler.

It is what `make setup` and the image do. Without a compiler it says so, and the rules run as plain Python; with
`--require`, which is for the image, it ends with status 1 then.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from schemas.compiled import MODULES, ROOT, place

# Run in a directory with copies of both packages. `separate` would make calls between modules slower.
_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

modules = {modules!r}
extensions = mypycify(
    ["--strict", "--no-warn-unused-ignores", *modules], opt_level="2", debug_level="0", group_name="schemas.shared"
)
setup(name="kizuna", ext_modules=extensions, script_args=["--quiet", "build_ext", "--build-lib", "built"])
"""


def compile_rules() -> None:
    """Build what is missing. Raises RuntimeError where that cannot be done; the message says why."""
    target = place()
    if target.is_dir():
        return
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(compiler) is None:
        raise RuntimeError("there is no C compiler here")
    if not headers.is_file():
        raise RuntimeError(f"there is no {headers} here")
    print("compiling the rules, which takes a minute", file=sys.stderr, flush=True)
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compiling-", dir=target.parent) as directory:
        work = Path(directory)
        for package in MODULES:
            shutil.copytree(
                ROOT / package, work / package, ignore=shutil.ignore_patterns("_compiled", "__pycache__")
            )
        modules = [f"{package}/{name}.py" for package, names in MODULES.items() for name in names]
        setup = _SETUP.format(modules=modules)
        done = subprocess.run(
            [sys.executable, "-c", setup], cwd=work, text=True, capture_output=True, check=False
        )
        built = work / "built"
        if done.returncode or not built.is_dir():
            raise RuntimeError(f"the compiler failed:\n{done.stdout}{done.stderr}")
        try:
            built.rename(target)
        except OSError:
            if not target.is_dir():  # else another run was quicker, with the same sources
                raise
    for other in target.parent.iterdir():
        if other != target and not other.name.startswith("compiling-"):
            shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    try:
        compile_rules()
    except RuntimeError as error:
        print(f"the rules run as plain Python, some two times slower: {error}", file=sys.stderr)
        sys.exit("--require" in sys.argv)
