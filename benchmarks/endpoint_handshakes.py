"""How often `auditor probes endpoint` accuses a server that is honest, and how often it catches one that lies.

200 honest servers of twelve kinds, and each lie of the stub 20 times, clipped temperatures from above, below and both;
each with a toy model of its own. An argument gives another number of honest servers.
"""

from __future__ import annotations

import sys
import time
from collections import Counter

from auditor.models.endpoint.server_findings import Shown
from benchmarks.common import machine
from tests.models.endpoint.stub import LIES, Stub
from tests.models.endpoint.test_handshake import CAUGHT_AS, HONEST, accused, shaken

RUNS_OF_A_LIE = 20
CLIPS = ((0.7, 1.0), (0.7, 2.0), (0.0, 1.0))


def main(honest: int) -> None:
    begun = time.process_time()
    accusations: Counter[str] = Counter()
    open_: Counter[str] = Counter()
    for i in range(honest):
        found = shaken(Stub(20_000 + i, **HONEST[i % len(HONEST)]))
        accusations.update(accused(found))
        if i % len(HONEST) < 2:
            open_.update(each.name for each in found.capabilities if each.shown is not Shown.PROVEN)
    print(machine())
    print(f"{honest} honest servers: {accusations.total()} accusations {dict(accusations)}")
    print(f"of the {sum(i % len(HONEST) < 2 for i in range(honest))} that do all, left open: {dict(open_)}")
    for lie in LIES:
        caught, besides = 0, 0
        for i in range(RUNS_OF_A_LIE):
            stub = Stub(30_000 + i, frozenset({lie}), clip=CLIPS[i % len(CLIPS)], scaled=i % 2 == 1)
            names = accused(shaken(stub, more_calls=100 if lie == "swaps_model" else 0))
            caught += CAUGHT_AS[lie] in names
            besides += bool(names - {CAUGHT_AS[lie], "top_logprobs"})
        print(f"{lie:<20} caught {caught} of {RUNS_OF_A_LIE}, something else accused in {besides}")
    print(f"processor time {time.process_time() - begun:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
