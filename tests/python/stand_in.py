"""A stand-in for NVIDIA's driver: the kernels compiled for the CPU, behind a `libcuda.so` that a server finds first."""

import os
import pathlib
import subprocess

KERNELS = pathlib.Path(__file__).resolve().parents[2] / "kernels"


def build(folder):
    """Builds it in a folder, for LD_LIBRARY_PATH; returns that."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sources, objects = KERNELS / "tests/emulator", []

    def compile(source, name, *options):
        objects.append(folder / f"{name}.o")
        run("-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas", "-c", *options, sources / source, "-o", objects[-1])

    compile("runtime.cpp", "runtime")
    compile("driver.cpp", "driver")
    for kernel in sorted((KERNELS / "cuda").glob("*.cu")):
        compile("kernel.cpp", kernel.stem, f'-DKERNEL_FILE="../../cuda/{kernel.name}"')
    run("-shared", "-Wl,-soname,libcuda.so", "-o", folder / "libcuda.so", *objects, "-ldl")
    return folder


def run(*arguments):
    done = subprocess.run([os.environ.get("CXX", "c++"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.args}\n{done.stderr}"


def environment(folder):
    """What a server needs to find it."""
    paths = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": ":".join(filter(None, paths))}
