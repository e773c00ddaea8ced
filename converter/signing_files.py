"""Which files a signature is of: all but the signature itself. Needs the extra ``sign``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model_signing import hashing, manifest

from converter.canonical import SIGNATURE_NAME


class EveryFile(hashing.Config):
    """The ``digests`` of all files of a directory, by name; None before they are asked for.

    When a signature is checked, that is after it has proven to be by the right key.
    """

    digests: Mapping[str, str] | None = None

    def add_ignored_paths(
        self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]
    ) -> None:
        """Ignore nothing of what the maker of a signature says may be ignored."""

    def hash(
        self,
        model_path: hashing.PathLike,
        *,
        files_to_hash: Iterable[hashing.PathLike] | None = None,
    ) -> manifest.Manifest:
        """Return the digests of all files."""
        self.digests = {}
        made = super().hash(model_path, files_to_hash=files_to_hash)
        self.digests = {
            item.identifier: item.digest.digest_hex for item in made.resource_descriptors()
        }
        return made


def every_file(jobs: int) -> EveryFile:
    """Return what digests every file but the signature, git's included, ``jobs`` at once."""
    # Signatures of parts of files cannot be checked again by version 1.1.1 of the package.
    files = EveryFile()  # type: ignore[no-untyped-call]
    files.use_file_serialization(hashing_algorithm="sha256", max_workers=jobs)
    return files.set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
