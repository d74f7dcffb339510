"""Models of the Hugging Face hub, by huggingface_hub: hf://owner/name, and uploads."""

import contextlib
import functools
import importlib
import importlib.util
import os
import re
import socket
import types
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator

from bert_tf.errors import RunError

PREFIX = "hf://"
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@\S+)?")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_TORCH = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
_NEIGHBOURS = re.compile(
    r"(bert_|tokenizer_)?config\.json|(task|tokenizer|added_tokens|preprocessor)\.json"
    r"|modules\.json|\d+_\w+/config\.json|sentence_bert_config\.json"
    r"|config_sentence_transformers\.json"
    r"|vocab\.txt|assets/tokenizer/vocabulary\.txt|(model|task)\.weights\.h5"
    r"|checkpoint|[^/]*ckpt[^/]*\.(index|data-\d+-of-\d+)"
)


def check_name(option: str, name: str, *, may_have_revision: bool = False) -> str:
    """The owner and name of a model on the hub, without hf://.

    Raises:
      ValueError: if it is no such name.
    """
    plain = name.removeprefix(PREFIX)
    found = _NAME.fullmatch(plain)
    if not found or (found[1] and not may_have_revision):
        rest = ", with @REVISION after it or without" * may_have_revision
        raise ValueError(
            f"`{option}` must be {PREFIX}OWNER/NAME{rest}. Received: {name}."
        )
    return plain


@functools.cache
def local_folder(path: str) -> str:
    """A path of this machine for a model: itself, or where a model of the hub is.

    Args:
      path: Any path, or hf://owner/name[@revision]: its weights, config and vocabulary
        are fetched into huggingface_hub's cache, unless they are there.

    Raises:
      ValueError: if the name is none.
      RunError: if it cannot be fetched.
    """
    if not path.startswith(PREFIX):
        return path
    plain = check_name("path", path, may_have_revision=True)
    name, _, revision = plain.partition("@")
    hub = require_hub()
    with _reported(f"{path} cannot be fetched"):
        _check_connection()
        listed = hub.HfApi().list_repo_files(name, revision=revision or None)
        weights = [f for f in listed if _SAFETENSORS.fullmatch(f)]
        weights = weights or [f for f in listed if _TORCH.fullmatch(f)]
        wanted = [*weights, *(f for f in listed if _NEIGHBOURS.fullmatch(f))]
        if not wanted:
            raise RunError(
                f"{path} must hold weights of a BERT. Received: "
                f"{', '.join(listed[:10]) or 'no file'}. Pass another name."
            )
        return hub.snapshot_download(
            name, revision=revision or None, allow_patterns=wanted
        )


def push(folder: str, files: Iterable[str], name: str) -> str:
    """Uploads files of a folder to a model on the hub, made private if it is new.

    Args:
      folder: The folder.
      files: The files, and folders in it.
      name: owner/name.

    Returns:
      The address of the commit.

    Raises:
      RunError: if it is not possible.
    """
    paths = [os.path.relpath(path, folder) for path in files]
    patterns = [each for path in paths for each in (path, f"{path}/*")]
    api = require_hub().HfApi()
    with _reported(f"{name} cannot be written to"):
        _check_connection()
        api.create_repo(name, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=patterns,
            commit_message="Model written by bert_tf",
        )
    return str(done.commit_url)


def require_hub() -> types.ModuleType:
    """The package huggingface_hub.

    Raises:
      RunError: if it is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise RunError(
            "For models of the hub, huggingface_hub must be installed: `pip install "
            '"bert_tf[hub]"` does.'
        )
    hub = importlib.import_module("huggingface_hub")
    for name in ("constants", "errors"):  # The package loads them on demand.
        importlib.import_module(f"huggingface_hub.{name}")
    return hub


def _check_connection() -> None:
    """Raises at once where a connection is refused: the package tries it for long."""
    address = urllib.parse.urlsplit(require_hub().constants.ENDPOINT)
    if urllib.request.getproxies():  # Which may connect where this machine cannot.
        return
    port = address.port or {"http": 80}.get(address.scheme, 443)
    try:
        socket.create_connection((address.hostname, port), timeout=5.0).close()
    except ConnectionRefusedError as error:
        raise OSError(f"{address.netloc} refuses connections ({error})") from None
    except OSError:
        pass  # The package may know more, and has its own messages.


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Says what failed, where huggingface_hub or the network raises an error."""
    try:
        yield
    except Exception as error:
        # Which HTTP library raises it depends on the version of huggingface_hub.
        is_http = type(error).__module__.startswith("http")
        known = (OSError, ValueError, require_hub().errors.HfHubHTTPError)
        if not (is_http or isinstance(error, known)):
            raise
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise RunError(
            f"{what}: {reason}. Check the name and the network; a private model needs "
            "a token: `hf auth login`, or the variable HF_TOKEN."
        ) from None
