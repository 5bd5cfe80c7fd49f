"""What penstock knows of other packages, one file each, imported only when that package is used."""

__all__: list[str] = []
