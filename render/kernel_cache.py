"""Compiled kernels on disk, and when they are no longer those of the source.

numba keeps a compiled function in `__pycache__` as long as the file that holds it is unchanged. What it takes
from another file, a kernel that it calls or inlines or a constant, is compiled in, and numba does not look
there again. `forget_stale` does: it reads which names the kernels of a file take from which files, and
removes the compiled kernels of a file when one of those has changed. The tests begin with it, and
`make kernels` does it before it compiles what a run needs.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

STAMP = ".kernels"
"""Suffix of a file in `__pycache__`: the hash of what the kernels of a module take from elsewhere."""
MARK = "njit"


def forget_stale(root: Path, packages: Sequence[str]) -> list[Path]:
    """Removes the compiled kernels below `root/<package>` that were made with other sources than today's; the
    files whose kernels they were. A file whose kernels take nothing from elsewhere is numba's own matter."""
    kernels = kernel_files(root, packages)
    taken = {path: _taken(path, root) for path in kernels}
    forgotten = []
    for path in kernels:
        others = _reached(path, taken)
        stamp = path.parent / "__pycache__" / f"{path.stem}{STAMP}"
        digest = _digest(root, others)
        if not others or (stamp.is_file() and stamp.read_text(encoding="ascii") == digest):
            continue
        compiled = [*stamp.parent.glob(f"{path.stem}.*.nbi"), *stamp.parent.glob(f"{path.stem}.*.nbc")]
        for file in compiled:
            file.unlink(missing_ok=True)
        if compiled:
            forgotten.append(path)
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(digest, encoding="ascii")
    return forgotten


def kernel_files(root: Path, packages: Sequence[str]) -> list[Path]:
    """Sources that hold kernels."""
    found = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return [path for path in found if MARK in path.read_text(encoding="utf-8")]


def _taken(path: Path, root: Path) -> frozenset[Path]:
    """Files from which the kernels of a file take names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: dict[str, Path] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                source = _source(root, f"{node.module}.{name.name}") or _source(root, node.module)
                if source is not None:
                    imported[name.asname or name.name] = source
        elif isinstance(node, ast.Import):
            for name in node.names:
                source = _source(root, name.name)
                if source is not None and name.asname:
                    imported[name.asname] = source
    used = {
        name.id
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and any(MARK in ast.dump(d) for d in function.decorator_list)
        for name in ast.walk(function)
        if isinstance(name, ast.Name)
    }
    for node in reversed(tree.body):  # what a constant that they use is made of
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id in used for target in targets):
            used |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return frozenset(imported[name] for name in used & imported.keys()) - {path}


def _source(root: Path, module: str) -> Path | None:
    path = root / f"{module.replace('.', '/')}.py"
    return path if path.is_file() else None


def _reached(path: Path, taken: Mapping[Path, frozenset[Path]]) -> list[Path]:
    """All files whose contents are in the kernels of a file, but for itself."""
    found: set[Path] = set()
    ahead = {path}
    while ahead:
        ahead = {other for one in ahead for other in taken.get(one, ())} - found - {path}
        found |= ahead
    return sorted(found)


def _digest(root: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
