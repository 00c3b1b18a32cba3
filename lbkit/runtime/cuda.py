"""Why CUDA cannot run here: the wheel, the driver, the GPU, or a library, and what mends it.

Only an explanation: whether CUDA runs is decided by making a session and looking at it (`lbkit.runtime.providers`).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from lbkit.runtime.wheels import Obstacle, installed_ort_wheels, reinstall_command

CUDA_PROVIDER = "CUDAExecutionProvider"
DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

_ON_CPU = "or choose `--provider cpu`"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE, CUDA driver API, cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, likewise
_MISSING_LIBRARY = re.compile(
    r"([\w+-]+\.(?:so(?:\.\d+)*|dll))[\"']?(?:: cannot open shared object| which is missing|: No such file)"
)
_CUDA_WORDS = re.compile(
    r"\b(?:CUDA|CUDNN|cuDNN|CUBLAS|cuBLAS|CUFFT|NVRTC|TensorRT)\b|_(?:cuda|tensorrt)\b|cudaError", re.IGNORECASE
)

LoadLibrary = Callable[[str], Any]


def concerns_cuda(words: str) -> bool:
    """Tell whether an error that ONNX Runtime raised speaks of CUDA rather than of the model."""
    return bool(_CUDA_WORDS.search(words))


def find_cuda_obstacle(
    onnxruntime: Any, *, provider: str = CUDA_PROVIDER, load: LoadLibrary = ctypes.CDLL
) -> Obstacle | None:
    """Say what certainly keeps CUDA from running, without making a session; None if nothing is found.

    Args:
        onnxruntime: The module.
        provider: ONNX Runtime's name of the provider: CUDA, or TensorRT, which stands on it.
        load: Loads a shared library by its name.
    """
    return _wheel_obstacle(onnxruntime, provider) or _driver_obstacle(_cuda_version(onnxruntime), load)


def explain_cuda_failure(
    onnxruntime: Any, words: str, *, provider: str = CUDA_PROVIDER, load: LoadLibrary = ctypes.CDLL
) -> Obstacle:
    """Say why a session fell to the CPU or failed on CUDA.

    Args:
        onnxruntime: The module.
        words: What ONNX Runtime said, on its log or in an exception.
        provider: ONNX Runtime's name of the provider that was asked for.
        load: Loads a shared library by its name.
    """
    found = find_cuda_obstacle(onnxruntime, provider=provider, load=load)
    return found or _library_obstacle(onnxruntime, words) or _unknown_obstacle(onnxruntime, words)


def read_gpu_name(*, load: LoadLibrary = ctypes.CDLL) -> str | None:
    """Return the first GPU's name, compute capability and driver version; None where there is no NVIDIA GPU."""
    try:
        driver = load(DRIVER_LIBRARY)
    except OSError:
        return None
    device, major, minor, version = (ctypes.c_int(0) for _ in range(4))
    name = ctypes.create_string_buffer(256)
    failed = (
        int(driver.cuInit(0))
        or int(driver.cuDeviceGet(ctypes.byref(device), 0))
        or int(driver.cuDeviceGetName(name, len(name), device))
        or int(driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device))
        or int(driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device))
        or int(driver.cuDriverGetVersion(ctypes.byref(version)))
    )
    if failed:
        return None
    return f"{name.value.decode(errors='replace')} sm_{major.value}{minor.value} driver CUDA {version.value}"


def _wheel_obstacle(onnxruntime: Any, provider: str) -> Obstacle | None:
    if provider in onnxruntime.get_available_providers():
        return None
    wheels = installed_ort_wheels()
    names = ", ".join(f"{name} {version}" for name, version in wheels.items()) or "this onnxruntime"
    command = reinstall_command(wheels, wanted="onnxruntime-gpu")
    lacking = "CUDA" if provider == CUDA_PROVIDER else provider.removesuffix("ExecutionProvider")
    return Obstacle(f"{names} is built without {lacking}", f"run {command}")


def _driver_obstacle(needed_version: str, load: LoadLibrary) -> Obstacle | None:
    try:
        driver = load(DRIVER_LIBRARY)
    except OSError:
        return Obstacle(
            f"there is no NVIDIA driver on this machine ({DRIVER_LIBRARY} cannot be loaded)",
            f"install the driver until `nvidia-smi` lists the GPU (containers: `docker run --gpus all`), {_ON_CPU}",
        )
    code = int(driver.cuInit(0))
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    if code == 0:
        code = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if code == _NO_DEVICE or (code == 0 and count.value == 0):
        return _no_gpu()
    if code != 0:
        problem = f"the NVIDIA driver does not start (CUDA error {code})"
        return Obstacle(problem, f"look at what `nvidia-smi` says and restart the machine, {_ON_CPU}")
    driver.cuDriverGetVersion(ctypes.byref(version))
    return _old_driver(version.value, needed_version)


def _no_gpu() -> Obstacle:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return Obstacle(
            f"CUDA_VISIBLE_DEVICES={hidden!r} leaves no GPU", f"run `unset CUDA_VISIBLE_DEVICES`, {_ON_CPU}"
        )
    return Obstacle(
        "the NVIDIA driver finds no GPU", f"see that `nvidia-smi` lists one (containers: `--gpus all`), {_ON_CPU}"
    )


def _old_driver(version: int, needed_version: str) -> Obstacle | None:
    """Compare major versions: within a major version CUDA runs on older drivers (CUDA minor version compatibility)."""
    needed = _major(needed_version)
    if needed is None or version // 1000 >= needed:
        return None
    return Obstacle(
        f"the NVIDIA driver knows CUDA {version // 1000}.{version % 1000 // 10}, and this onnxruntime-gpu is built "
        f"for CUDA {needed_version}",
        f"install a newer driver, or an onnxruntime-gpu built for CUDA {version // 1000}, {_ON_CPU}",
    )


def _library_obstacle(onnxruntime: Any, words: str) -> Obstacle | None:
    found = _MISSING_LIBRARY.search(words)
    if found is None:
        return None
    problem = f"the library {found[1]} cannot be loaded"
    version = _cuda_version(onnxruntime)
    if found[1].startswith(("libnvinfer", "nvinfer", "libnvonnxparser", "nvonnxparser")):
        return Obstacle(problem, f"run `pip install tensorrt-cu{_major(version) or 12}`, or choose `--provider cuda`")
    if version:
        problem += f" (onnxruntime-gpu {onnxruntime.__version__} wants CUDA {version} and cuDNN 9)"
    return Obstacle(problem, f"run {_install_libraries(version)}")


def _unknown_obstacle(onnxruntime: Any, words: str) -> Obstacle:
    said = f"ONNX Runtime says: {words}" if words else "ONNX Runtime does not say why"
    version = _cuda_version(onnxruntime)
    return Obstacle(
        f"a session asked for it does not run on it; {said}", f"try {_install_libraries(version)}, {_ON_CPU}"
    )


def _install_libraries(cuda_version: str) -> str:
    if {"cuda", "cudnn"} <= _extras("onnxruntime-gpu"):
        return '`pip install "onnxruntime-gpu[cuda,cudnn]"`'
    major = _major(cuda_version) or 12
    suffix = "" if major >= 13 else f"-cu{major}"  # NVIDIA dropped the suffix with CUDA 13, except for cuDNN
    parts = ("cuda-runtime", "cuda-nvrtc", "cublas", "cufft", "curand")
    packages = [f"nvidia-{part}{suffix}" for part in parts] + [f"nvidia-cudnn-cu{major}"]
    return f"`pip install {' '.join(packages)}`"


def _extras(package: str) -> set[str]:
    try:
        return set(metadata.metadata(package).get_all("Provides-Extra") or [])
    except metadata.PackageNotFoundError:
        return set()


def _cuda_version(onnxruntime: Any) -> str:
    """Return the CUDA version that the wheel was built for, such as "13.0"; empty if it does not say."""
    return str(getattr(onnxruntime, "cuda_version", "") or "")


def _major(version: str) -> int | None:
    head = version.split(".")[0]
    return int(head) if head.isdigit() else None
