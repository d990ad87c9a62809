"""Preparing a data set with TFDS: from a download, if its host answers, or from local files."""

import importlib.util
import threading
from pathlib import Path

from absl import logging

from gm_jax.data.builders import BUILDERS, builder_class
from gm_jax.errors import UserError

PATIENCE = 3.0  # seconds; TFDS itself would retry a silent host for more than three minutes


class Unavailable(Exception):
    """A data set cannot be prepared here and now; the message says why, as the end of a sentence."""


def prepare(name: str, data_dir: Path, source: str | None = None) -> Path:
    """Prepare a data set as array_record in `data_dir` and return its version directory.

    `source`: a folder of the original files, for the sets in `BUILDERS`; without it they are downloaded. Raises
    Unavailable if the host does not answer or a requirement is missing, UserError if the files are wrong or
    `data_dir` cannot be written.
    """
    import requests
    import tensorflow_datasets as tfds

    if source is not None and name not in BUILDERS:
        raise UserError(f"--source serves {', '.join(BUILDERS)} alone, not '{name}': leave it out")
    builder_cls = builder_class(name) if name in BUILDERS else tfds.builder_cls(name.split("/")[0])
    if source is None:
        _require(name, builder_cls)
    keywords = {"data_dir": data_dir, "file_format": "array_record"}
    checksum_error = tfds.download.download_manager.NonMatchingChecksumError
    logging.info("Preparing data set '%s' in %s.", name, data_dir)
    try:
        builder = builder_cls(source=source, **keywords) if name in BUILDERS else tfds.builder(name, **keywords)
        builder.download_and_prepare()
    except (requests.RequestException, tfds.download.DownloadError, checksum_error) as error:
        raise Unavailable(f"the download failed ({_first_line(error)})") from error
    except ImportError as error:
        raise Unavailable(f"TFDS's builder lacks a Python package ({_first_line(error)}): install it") from error
    except OSError as error:
        raise UserError(f"{data_dir} cannot be written ({_first_line(error)}): give another data_dir") from error
    return Path(builder.data_dir)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _require(name: str, builder_cls: type) -> None:
    """Raise Unavailable unless the host answers and TensorFlow, if the builder needs it, is there."""
    url = next(iter(builder_cls.url_infos or {}), None)
    reason = silence(url) if url else None
    if reason:
        raise Unavailable(f"the data host does not answer ({reason})")
    if name in BUILDERS:
        return
    if builder_cls.MANUAL_DOWNLOAD_INSTRUCTIONS:
        page = f"https://www.tensorflow.org/datasets/catalog/{builder_cls.name}"
        raise Unavailable(f"it must be downloaded by hand, see {page}")
    if importlib.util.find_spec("tensorflow") is None:
        raise Unavailable("TFDS's builder needs TensorFlow once: `pip install tensorflow-cpu`, then start again")
    import tensorflow

    tensorflow.config.set_visible_devices([], "GPU")  # the GPU is JAX's


def silence(url: str, patience: float = PATIENCE) -> str | None:
    """Return why `url` does not answer, or None if it does; takes `patience` seconds at most.

    It asks as TFDS will (the same library, hence the same proxies), in a thread because looking up a host name has
    no deadline of its own.
    """
    import requests

    outcome = []

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=patience) as response:
                outcome.append(None if response.ok else f"HTTP status {response.status_code}")
        except requests.RequestException as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return outcome[0] if outcome else f"nothing within {patience:g} s"
