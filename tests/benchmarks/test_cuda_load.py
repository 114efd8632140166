"""The stand-in for NVIDIA's driver and the table of libraries; nothing is downloaded here."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cuda_load import needed_libraries, needed_of_driver, shown


def test_functions_of_the_driver_are_told_from_those_of_its_libraries(tmp_path: Path) -> None:
    library = tmp_path / "libnnabla_cuda.so"
    names = ("cuInit", "cuMemCreate", "cuDevicePrimaryCtxRelease_v2", "cudaMalloc", "cublasCreate")
    library.write_bytes(b"\0".join((b"", *(name.encode() for name in names), b"rest of it cuInit")))
    assert needed_of_driver(library) == ["cuDevicePrimaryCtxRelease_v2", "cuInit", "cuMemCreate"]


def test_parts_of_cudnn_are_needed_too() -> None:
    assert {"libcuda.so.1", "libcudnn.so.8", "libcudnn_ops_infer.so.8"} <= set(needed_libraries())


def test_table_of_libraries() -> None:
    files = {"liba.so": "/x/site-packages/nvidia/liba.so", "liblong.so": "/usr/lib/liblong.so"}
    assert shown(files).splitlines() == [
        "liba.so    -> site-packages/nvidia/liba.so",
        "liblong.so -> /usr/lib/liblong.so",
    ]
