"""Checks a built wheel and gives it its manylinux tag: `python tests/package/wheel.py dist/*.whl`.

auditwheel says which manylinux the wheel's extensions need; nothing is grafted, since they link to libc alone. An
extension with debug sections or a symbol table, or a wheel that is too large, fails. The tag follows from the glibc of
the machine that builds: wheels for older systems are built in a manylinux image.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

SIZE_LIMIT_BYTES = 3_500_000


def manylinux_tag(wheel: Path) -> str:
    """Return the oldest manylinux platform that auditwheel finds the wheel consistent with."""
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True, check=True
    ).stdout
    tag = re.search(r'following platform tag:\s+"(manylinux_\d+_\d+_\w+)"', shown)
    if tag is None:
        sys.exit(f"no manylinux:\n{shown}")
    return tag[1]


def unstripped(wheel: Path) -> list[str]:
    """Return the extensions that still have debug sections or a symbol table."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        if not names:
            sys.exit(f"{wheel.name} has no extension")
        return [name for name in names if _is_unstripped(archive, name)]


def _is_unstripped(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as file:
        sections = [section.name for section in ELFFile(file).iter_sections()]
    return any(section == ".symtab" or section.startswith(".debug") for section in sections)


def retag(wheel: Path, tag: str) -> Path:
    """Rename the wheel, and what its metadata says, to the platform tag."""
    command = [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, str(wheel)]
    return wheel.parent / subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def main(wheel: Path) -> None:
    if left := unstripped(wheel):
        sys.exit(f"not stripped: {', '.join(left)}")
    if (size_bytes := wheel.stat().st_size) > SIZE_LIMIT_BYTES:
        sys.exit(f"{wheel.name} has {size_bytes:,} bytes, more than {SIZE_LIMIT_BYTES:,}")
    tag = manylinux_tag(wheel)
    print(f"{retag(wheel, tag).name}: {size_bytes:,} bytes, stripped, {tag}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
