"""`python SCRIPT ...` without the seconds that importing the libraries takes.

A server, one for each test process, has imported the libraries and nothing of this project. For every command line it
forks a process, in which the script runs as `python SCRIPT ...` runs it: working directory, output and exit code are
its own, and this project's modules are read from the disk.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback

LIBRARIES = ["torch", "torchvision", "h5py", "matplotlib.figure", "matplotlib.backends.backend_pdf", "PIL.Image",
             "scipy.sparse.linalg", "pyvista"]
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(LIBRARIES)  # what is not installed is left out


def python(command, cwd, timeout):
    """CompletedProcess, with text output, of `python COMMAND`: SCRIPT ... or -m MODULE ...; raises TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("out", "err")]
        process = server.Process(target=_run, args=(command, str(cwd), dict(os.environ), files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        out, err = (open(file).read() for file in files)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def _run(command, cwd, environment, files):
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    module = command[0] == "-m"
    script, *arguments = command[module:]
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = [cwd if module else os.path.dirname(os.path.abspath(script)),
                   *(path for path in sys.path if path not in ("", home))]
    sys.argv = [script, *arguments]
    code = 1
    try:
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    # what an interpreter does at its end, and a process of multiprocessing does not
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
