"""Downloading CIFAR from its authors, once, into the cache that `load_cifar` searches.

A file appears under its final name only after its checksum has been verified. So every file in the
cache is whole, and an interrupted download leaves nothing that a later run would trust.
"""

from functools import partial
from pathlib import Path

from minisam.data.cifar import cache_dir

TIMEOUT = 30.0  # seconds to wait for a connection, and for each piece of data


HOME = "https://www.cs.toronto.edu/~kriz/"
ARCHIVES = {  # their addresses, and the MD5 checksums stated on the page cifar.html
    "cifar10": (HOME + "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": (HOME + "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
}


def fetch(name: str, *, progress: bool = True) -> Path:
    """Download "cifar10" (162 MB) or "cifar100" (161 MB) unless it is there; return the archive.

    `progress` draws a bar on standard error. Raises OSError if the connection is refused, breaks or
    stalls for TIMEOUT seconds, or if the server answers with an error; ValueError if the name is
    unknown or the checksum wrong. In all these cases the cache stays as it was.
    """
    if name not in ARCHIVES:
        raise ValueError(f"name: expected one of {', '.join(ARCHIVES)}, got {name!r}")
    import pooch  # slow to import, and only needed here
    from requests import RequestException

    url, md5 = ARCHIVES[name]
    file = url.rpartition("/")[2]
    try:
        path = pooch.retrieve(url, f"md5:{md5}", file, cache_dir(), downloader=partial(_download, progress=progress))
    except RequestException as error:
        cause = (*error.args, error)[0]
        raise OSError(f"{url}: download failed: {getattr(cause, 'reason', cause)}") from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error
    return Path(path)


def _download(url: str, path: str, _: object, progress: bool) -> None:
    """Write the contents of url to path, where pooch verifies it (pooch's own downloader leaves sockets open)."""
    import requests
    from tqdm import tqdm

    with requests.get(url, stream=True, timeout=TIMEOUT) as response, open(path, "wb") as file:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0))
        with tqdm(total=size, unit="B", unit_scale=True, disable=not progress) as bar:
            for chunk in response.iter_content(1 << 16):
                bar.update(file.write(chunk))
