"""Versions of a file: what tells two apart, and one of them fetched whole."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from poisonwatch.sources.base import MIB

WEB_PROTOCOLS = ("http", "https")
S3_PROTOCOLS = ("s3", "s3a")
MOST_FETCHED = MIB  # bytes of a file that is fetched whole, ahead of its reading
IDENTITIES = (
    "ETag",
    "etag",
    "md5Hash",
    "Content-MD5",
    "Digest",
    "blob_id",
    "CRC",
    "Last-Modified",
    "LastModified",
    "mtime",
    "created",
)
"""What servers tell of a file's content, the surest first."""


def compute_file_fingerprint(fs: Any, path: str, info: Mapping[str, Any]) -> str | None:
    """What tells two versions of a file apart without reading it: size and time of change, or what
    the server says of its content.
    """
    if is_local(fs):
        status = Path(path).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
    for key in IDENTITIES:
        if told := info.get(key):
            # A time comes as another type in listings than of one file.
            if isinstance(told, datetime):
                told = told.timestamp()
            identity = str(told).strip('"')
            return identity and f"{info.get('size')}-{identity}"
    return None


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine."""
    return "file" in _get_protocols(fs)


def is_web(fs: Any) -> bool:
    """Whether a file system is that of web servers."""
    return not _get_protocols(fs).isdisjoint(WEB_PROTOCOLS)


def _get_protocols(fs: Any) -> set[str]:
    if isinstance(fs.protocol, str):
        return {fs.protocol}
    return set(fs.protocol)


def can_fetch(fs: Any) -> bool:
    """Whether several threads may ask for files at once."""
    return bool(getattr(fs, "async_impl", False)) and not is_local(fs)


def fetch_version(fs: Any, path: str, info: Mapping[str, Any]) -> bytes | None:
    """A whole file as it was when the file system gave this `info` of it; None where it is another
    one now. Raises what the file system does where it cannot be had.
    """
    tag = info.get("ETag")
    if tag and not _get_protocols(fs).isdisjoint(S3_PROTOCOLS):
        return bytes(sync(fs.loop, _get_object, fs, path, tag))
    content = bytes(fs.cat_file(path))
    # fsspec keeps listings of directories: one from before would tell nothing.
    fs.invalidate_cache()
    now = compute_file_fingerprint(fs, path, fs.info(path))
    return content if now == compute_file_fingerprint(fs, path, info) else None


async def _get_object(fs: Any, path: str, tag: str) -> bytes:
    """An object of S3, if it still has this ETag: one request, which answers for its version."""
    bucket, key, version = fs.split_path(path)
    named = {"VersionId": version} if version else {}
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, IfMatch=tag, **named)
    async with answer["Body"] as body:
        return bytes(await body.read())
